"""etcd's Cluster service: members, and promotions that are passed on."""
