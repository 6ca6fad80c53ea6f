"""Revisions, ranges, transactions, watches, compaction and hashes over a Backend."""
