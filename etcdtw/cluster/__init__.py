"""Members, ids and versions: who the cluster is. Pure."""
