"""One lab server's appliance."""

__version__ = "0.1.0"
