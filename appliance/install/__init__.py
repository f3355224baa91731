"""This program as a server's appliance."""
