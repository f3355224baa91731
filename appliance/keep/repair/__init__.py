"""State files and the archive while no server runs: checked, repaired, exported; backups."""
