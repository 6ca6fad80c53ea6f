"""Metrics under etcd's names: the table of them, and where each number is read."""
