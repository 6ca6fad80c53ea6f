"""etcd's KV service: checks, ranges, puts, txns, and answers too large for one go."""
