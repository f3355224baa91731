"""One lab server's appliance."""
