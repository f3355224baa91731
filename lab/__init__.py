"""The lab of the demo and the tests: emulated boxes in a network namespace; not installed."""
