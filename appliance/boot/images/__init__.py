"""Root filesystems: lists, builds, imports and removes them."""
