"""Joins store, disk, clock and boxes: decide, keep, act."""
