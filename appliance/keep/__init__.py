"""How jobs and results survive: the journal, the archive, result files, repairs."""
