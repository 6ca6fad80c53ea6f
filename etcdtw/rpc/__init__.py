"""etcd's v3 services: screening, checks, response headers, error texts."""
