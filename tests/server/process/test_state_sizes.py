"""Sizes of the state in log lines."""

from __future__ import annotations

import pytest
from twisted.logger import capturedLogs

from etcdtw.server.process.state_sizes import StateSizes, octets_text


class State:
    size_allocated = 16_384
    size_in_use = 4_096


def test_compactions_and_defragmentations_that_are_not_needed_are_told_in_etcds_words() -> None:
    sizes = StateSizes(State())
    with capturedLogs() as events:
        sizes.compacted(20, 0.0035, 18)
        sizes.not_defragmented(100 * 1024 * 1024)
    compacted, skipped = events
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
