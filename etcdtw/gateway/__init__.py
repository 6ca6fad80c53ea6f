"""HTTP/1.1 on the client port: health, metrics, version."""
