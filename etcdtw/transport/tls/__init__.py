"""TLS: files and contexts, whom to believe, the gate before a port, dialling."""
