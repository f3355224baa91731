"""What people write: job documents, and what is wrong with one."""
