"""Consensus: the Raft core. Messages and ticks in, a Ready out; no I/O, no clock."""
