"""The boot script for iPXE, and job.cgz for the client."""
