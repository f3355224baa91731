"""What work is, and who gets it; all of it is pure."""
