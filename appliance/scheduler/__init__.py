"""Joins store, disk, clock and boxes: each change is decided, kept, then acted on."""
