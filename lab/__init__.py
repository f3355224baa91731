"""The lab of the demo and of the tests: a network namespace with emulated boxes; not installed."""
