"""The Raft log: its octets, a journal that is flushed, and LMDB, which takes that over."""
