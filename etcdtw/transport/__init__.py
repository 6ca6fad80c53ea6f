"""Twisted shells: listeners, TLS, connections of clients and of peers."""
