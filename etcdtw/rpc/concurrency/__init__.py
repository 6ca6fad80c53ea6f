"""Locks and elections: a client of this member, in the layout of etcd's `concurrency` package."""
