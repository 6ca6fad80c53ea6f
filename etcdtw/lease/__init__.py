"""Leases and their deadlines. Pure: time is an argument."""
