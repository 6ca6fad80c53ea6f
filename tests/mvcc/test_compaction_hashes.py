"""Which hashes of compactions are remembered."""

from __future__ import annotations

from etcdtw.mvcc.compaction_hashes import (
    COMPACTION_HASHES_MAX,
    CompactionHash,
    CompactionHashes,
)


def test_the_last_ten_are_remembered() -> None:
    hashes = CompactionHashes()
    for revision in range(1, COMPACTION_HASHES_MAX + 1):
        hashes.add(revision, revision - 1, 100 + revision)
    assert hashes.find(1) == CompactionHash(1, 0, 101)
    hashes.add(COMPACTION_HASHES_MAX + 1, COMPACTION_HASHES_MAX, 7)
    assert hashes.find(1) is None
    assert hashes.find(2) == CompactionHash(2, 1, 102)
    assert len(hashes.since(-1)) == COMPACTION_HASHES_MAX


def test_those_behind_a_revision_come_newest_first() -> None:
    hashes = CompactionHashes()
    for revision in (3, 5, 9):
        hashes.add(revision, -1, revision)
    assert [one.revision for one in hashes.since(3)] == [9, 5]
    assert hashes.since(9) == []
