"""Folders that somebody else fills."""
