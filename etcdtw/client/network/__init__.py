"""Calls over the network: a connection, the way to one server, a channel over several."""
