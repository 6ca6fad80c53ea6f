"""Calls to etcd: the seam to what carries them, a member's own way, and methods on top."""
