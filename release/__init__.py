"""Builds what is released: the one file and the Debian package; not installed."""
