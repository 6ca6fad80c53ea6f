"""etcd's auto-compaction on a node: who proposes it, what is said, and what a new leader does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from etcdtw.node.duties.history.auto_compaction import PeriodicCompaction, RevisionCompaction
from etcdtw.node.duties.history.compaction import HistoryCompaction
from tests.support.cluster_rig import ClusterRig

PERIOD_MS: Final = 10_000
EVERY_MS: Final = PERIOD_MS // 10


@pytest.fixture
def said() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace", "").endswith("HistoryCompaction"):
            events.append(event)

    observer = cast(ILogObserver, observe)
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


def periodic(folder: Path, count: int) -> ClusterRig:
    return ClusterRig(folder, count, auto_compaction=lambda: PeriodicCompaction(PERIOD_MS))


def write(rig: ClusterRig, seconds: float) -> None:
    for _ in range(int(seconds * 10)):
        rig.put(rig.leader(), b"k")
        rig.run(0.1)


def compacted(rig: ClusterRig) -> int:
    (revision,) = {node.store.compact_revision for node in rig.nodes}
    return revision


def test_only_the_leader_proposes_and_says_so_in_etcds_words(
    tmp_path: Path, said: list[LogEvent]
) -> None:
    rig = periodic(tmp_path, 3)
    write(rig, 0.5)
    write(rig, (PERIOD_MS + EVERY_MS) / 1000 - 0.5)
    first = compacted(rig)
    assert first >= 1
    write(rig, PERIOD_MS / 1000)
    assert compacted(rig) > first
    words = [str(event["log_format"]).format(**event) for event in said]
    assert {event["compact-period"] for event in said} == {"10s"}
    assert said[1]["took"] == "0s"
    assert words == ["starting auto periodic compaction", "completed auto periodic compaction"] * 2


def test_a_new_leader_goes_on_with_what_it_has_seen(tmp_path: Path) -> None:
    rig = periodic(tmp_path, 3)
    write(rig, PERIOD_MS / 1000 - 2)
    assert compacted(rig) == -1
    rig.crash(rig.leader().member_id)
    write(rig, 4 + 2 * EVERY_MS / 1000)
    # It does not begin to count anew.
    assert compacted(rig) >= 1


def test_a_new_leader_compacts_by_number_at_its_next_look(tmp_path: Path) -> None:
    rig = ClusterRig(tmp_path, 3, auto_compaction=lambda: RevisionCompaction(10))
    write(rig, 3)
    rig.crash(rig.leader().member_id)
    rig.leader()
    rig.run(300)
    assert compacted(rig) == rig.leader().store.revision - 10


def test_what_failed_is_tried_again_and_what_was_compacted_before_is_not(
    tmp_path: Path, said: list[LogEvent]
) -> None:
    rig = periodic(tmp_path, 1)
    node = rig.leader()
    history: HistoryCompaction = node.duties.history_compaction
    rig.members[1].log.holds = True
    rig.run(PERIOD_MS / 1000 + 12)
    words = [str(event["log_format"]).split()[0] for event in said]
    assert words[:3] == ["starting", "failed", "starting"]
    rig.members[1].log.holds = False
    rig.members[1].log.release()
    rig.run(12)
    assert history.policy is not None
    assert compacted(rig) == 1
    assert str(said[-1]["log_format"]).startswith("completed")
    count = len(said)
    rig.run(3 * PERIOD_MS / 1000)
    assert len(said) == count
