"""See `appliance/__init__.py` for the map."""
