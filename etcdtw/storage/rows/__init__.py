"""The rows of the state: their octets, seals, tables and compaction."""
