"""State files while no server runs; backups."""
