"""Installs, upgrades and removes this program on a server."""
