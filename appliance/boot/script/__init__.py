"""What iPXE and the box's first program are told."""
