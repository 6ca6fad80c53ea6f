"""The Raft reactor service: the turn, proposals, reads, ticks."""
