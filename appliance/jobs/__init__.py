"""Jobs and testboxes: their states, and which box gets which job; all of it is pure."""
