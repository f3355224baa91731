"""HTTP: connections, bodies, files; who gets in, what each may cost."""
