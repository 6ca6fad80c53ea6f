"""A whole state from etcd's file or from its own bucket, and how it takes another's place."""
