"""etcd's v3 services: checks, response headers, error texts."""
