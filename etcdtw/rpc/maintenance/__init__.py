"""etcd's Maintenance service, and gRPC's health."""
