"""Root filesystems: found, built, imported, removed."""
