"""How it survives."""
