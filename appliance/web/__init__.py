"""HTTP: connections, bodies, files; admits clients and limits what each may use."""
