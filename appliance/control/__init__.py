"""The command line's unix socket: both ends, and the verbs."""
