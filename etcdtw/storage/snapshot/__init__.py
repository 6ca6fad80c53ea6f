"""Snapshots of a running state, out to etcd's file and in from one, by short-lived processes."""
