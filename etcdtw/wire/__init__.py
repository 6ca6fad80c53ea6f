"""Octets and records: etcd's messages, varints, and ready-made encoders for hot replies."""
