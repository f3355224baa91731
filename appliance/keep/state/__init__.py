"""The journal, its snapshots, and how they are loaded."""
