"""etcd's Auth service: users, roles, passwords and tokens, as clients see them."""
