"""Sizes of the state in log lines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.logger import capturedLogs

from etcdtw.mvcc.compaction_hashes import CompactionHashes
from etcdtw.server.process.state_sizes import StateSizes, octets_text


class State:
    def __init__(self) -> None:
        self.size_allocated = 16_384
        self.size_in_use = 4_096
        self.compaction_hashes = CompactionHashes()
        self.error = ""
        self.defragmented = 0

    def defragment(self, done: Callable[[str], None]) -> None:
        self.defragmented += 1
        if not self.error:
            self.size_allocated = 8_192
        done(self.error)


def test_compactions_and_defragmentations_that_are_not_needed_are_told_in_etcds_words() -> None:
    state = State()
    state.compaction_hashes.add(20, 3, 240_807_299)
    sizes = StateSizes(state)
    with capturedLogs() as events:
        sizes.compacted(20, 0.0035, 18)
        sizes.defragment(100 * 1024 * 1024, lambda: 0.0)
    compacted, skipped = events
    assert state.defragmented == 0
    assert compacted["hash"] == 240_807_299
    assert compacted["log_format"] == "finished scheduled compaction"
    assert compacted["compact-revision"] == 20
    assert compacted["took"] == "3.500ms"
    assert compacted["number-of-keys-compacted"] == 18
    assert skipped["log_format"] == "Skipping defragmentation"
    assert skipped["bootstrap-defrag-threshold"] == "105 MB"
    for event in events:
        assert event["current-db-size-bytes"] == 16_384
        assert event["current-db-size"] == "16 kB"
        assert event["current-db-size-in-use"] == "4.1 kB"


def test_an_interrupted_compaction_has_no_hash_to_tell() -> None:
    with capturedLogs() as events:
        StateSizes(State()).compacted(20, 0.0035, 18)
    assert "hash" not in events[0]


@pytest.mark.parametrize(("threshold", "count"), [(12_287, 1), (12_288, 1), (12_289, 0)])
def test_the_start_defragments_what_frees_as_much_as_the_threshold(
    threshold: int, count: int
) -> None:
    state = State()
    done: list[None] = []
    with capturedLogs() as events:
        StateSizes(state).defragment(threshold, lambda: 1.0).addCallback(done.append)
    assert (state.defragmented, done) == (count, [None])
    if count:
        assert [e["log_format"] for e in events] == [
            "defragmenting",
            "finished defragmenting directory",
        ]
        assert events[1]["current-db-size-bytes-diff"] == -8_192


def test_a_defragmentation_that_fails_keeps_no_member_from_starting() -> None:
    state = State()
    state.error = "no room"
    done: list[None] = []
    with capturedLogs() as events:
        StateSizes(state).defragment(1, lambda: 1.0).addCallback(done.append)
    assert done == [None]
    assert events[-1]["log_format"] == "failed to defragment"
    assert events[-1]["error"] == "no room"


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (20_480, "20 kB"),
        (2_147_483_648, "2.1 GB"),
        (5 * 10**18, "5000 PB"),
    ],
)
def test_sizes_for_eyes(octets: int, text: str) -> None:
    assert octets_text(octets) == text
