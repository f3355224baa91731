"""Job documents: the YAML that people submit, read and checked."""
