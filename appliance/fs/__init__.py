"""Safe work with files and with folders that other users fill."""
