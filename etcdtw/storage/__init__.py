"""The only room that opens LMDB: the log (wal/) and the state (state/)."""
