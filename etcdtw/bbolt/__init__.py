"""etcd's database file: a writer and a reader of bbolt's format, and a snapshot's seal. Pure."""
