"""Spans of calls, under etcd's names: who has not asked for them pays nothing."""
