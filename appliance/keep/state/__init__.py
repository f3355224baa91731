"""The journal, its snapshots, and the way back from them."""
