"""Flags, variables and files, read by etcd's rules into one frozen configuration. Pure."""
