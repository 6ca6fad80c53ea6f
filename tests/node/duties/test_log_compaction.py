"""What a log keeps for members that take no entries for a while, and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from etcdtw.node.duties.compaction import (
    FOLLOWER_KEPT_MS,
    SILENT_MS,
    TIGHT_OCTETS_MAX,
    LogCompaction,
)
from etcdtw.node.duties.lag import FAR, MARKS_MAX, LogMarks
from etcdtw.raft.entry import ConfState, Entry, HardState, Snapshot
from tests.support.node_rig import MemoryLog

ENTRY_OCTETS = 100
MARK_ENTRIES = 10
KEPT_ENTRIES = MARKS_MAX * MARK_ENTRIES
KEPT_OCTETS = KEPT_ENTRIES * ENTRY_OCTETS
CATCHUP_ENTRIES = 20
SNAPSHOT_COUNT = 5
OWN, PEER, OTHER = 1, 2, 3


class Log(MemoryLog):
    def put_snapshot(self, snapshot: Snapshot, done: Callable[[], None]) -> None:
        self.mark = snapshot
        super().put_snapshot(snapshot, done)


class Rig:
    """A member whose log, peers and time are told here; all it appends is durable and applied."""

    def __init__(
        self,
        found_entries: int = 0,
        kept_octets_max: int = KEPT_OCTETS,
        entry_octets: int = ENTRY_OCTETS,
    ) -> None:
        self.entry_octets = entry_octets
        self.log = Log()
        self.now_ms = 1_000_000
        self.is_tight = self.is_short = False
        self.progress = {OWN: SimpleNamespace(match_index=0, recent_active=True)}
        self.raw = SimpleNamespace(
            is_leader=True,
            term=1,
            installing_index=0,
            progress=lambda: self.progress,
            configuration=SimpleNamespace(conf_state=ConfState),
        )
        self.state = SimpleNamespace(applied_durable=0)
        self._append(found_entries)
        self.marks = LogMarks(self.log, kept_octets_max)
        self.compaction = LogCompaction(
            cast(Any, self.raw),
            self.log,
            cast(Any, self.state),
            cast(Any, SimpleNamespace(keeps_log=lambda now_ms, is_short: False)),
            self.marks,
            lambda: self.is_tight,
            lambda: self.is_short,
            snapshot_count=SNAPSHOT_COUNT,
            catchup_entries=CATCHUP_ENTRIES,
            kept_octets_max=kept_octets_max,
        )

    def peer(self, member_id: int, match_index: int) -> Any:
        found = self.progress[member_id] = SimpleNamespace(
            match_index=match_index, recent_active=True
        )
        return found

    def append(self, count: int, ms: int = 0) -> None:
        """Append entries, one look after each; ``ms`` pass meanwhile."""
        for number in range(1, count + 1):
            self._append(1)
            self.look(ms * number // count - ms * (number - 1) // count)

    def look(self, ms: int = 0) -> None:
        self.now_ms += ms
        self.compaction.look(self.now_ms)

    def _append(self, count: int) -> None:
        last = self.log.last_index()
        entries = [Entry(1, last + i, 0, bytes(self.entry_octets)) for i in range(1, count + 1)]
        self.log.append(HardState(1, 0, last + count), entries, lambda: None)
        self.progress[OWN].match_index = self.state.applied_durable = last + count

    @property
    def kept(self) -> int:
        return self.log.last_index() - self.log.first_index() + 1

    @property
    def is_compacted(self) -> bool:
        """Whether only what every log keeps is there."""
        return self.kept <= CATCHUP_ENTRIES + SNAPSHOT_COUNT


def test_a_member_alone_keeps_nothing_for_others() -> None:
    rig = Rig()
    rig.append(100)
    assert rig.is_compacted


def test_a_leader_keeps_what_a_follower_lacks_that_answers() -> None:
    rig = Rig()
    rig.append(100)
    rig.peer(PEER, 90)
    rig.append(KEPT_ENTRIES // 2, ms=600_000)
    assert rig.log.first_index() <= 91
    rig.peer(PEER, rig.log.last_index())
    rig.look()
    assert rig.is_compacted


def test_a_leader_keeps_no_more_octets_than_the_bound() -> None:
    rig = Rig()
    rig.peer(PEER, 0)
    rig.append(100)
    rig.peer(PEER, 90)
    rig.append(90 + KEPT_ENTRIES - rig.log.last_index())
    assert rig.log.first_index() <= 91
    rig.append(1)
    assert rig.is_compacted, "it needs a snapshot, whatever is kept"


def test_what_one_follower_lacks_beyond_the_bound_does_not_cost_another_what_it_lacks() -> None:
    rig = Rig()
    rig.append(100)
    rig.peer(OTHER, 90)
    rig.append(KEPT_ENTRIES // 2)
    lacked = rig.peer(PEER, rig.log.last_index()).match_index
    rig.append(KEPT_ENTRIES - MARK_ENTRIES)
    assert rig.log.first_index() <= lacked + 1
    assert rig.log.first_index() > lacked - SNAPSHOT_COUNT


def test_a_leader_keeps_nothing_for_long_for_a_member_that_is_silent() -> None:
    rig = Rig()
    rig.append(100)
    rig.peer(PEER, 90)
    rig.append(100)
    rig.progress[PEER].recent_active = False
    rig.look(SILENT_MS - 1)
    assert rig.log.first_index() <= 91
    rig.look(1)
    assert rig.is_compacted


def test_a_new_leader_keeps_all_it_may_while_it_does_not_know_what_a_member_holds() -> None:
    rig = Rig()
    rig.raw.is_leader = False
    rig.append(100)
    rig.raw.is_leader, rig.raw.term = True, 2
    rig.peer(PEER, 0)
    first = rig.log.first_index()
    rig.append(KEPT_ENTRIES // 2, ms=600_000)
    assert rig.log.first_index() == first
    rig.append(KEPT_ENTRIES)
    assert rig.kept <= KEPT_ENTRIES + MARK_ENTRIES + SNAPSHOT_COUNT


def test_nothing_is_kept_for_a_member_that_is_added_with_an_empty_log() -> None:
    rig = Rig()
    rig.append(100)
    rig.peer(PEER, 0)
    rig.append(100)
    assert rig.is_compacted


def test_a_leader_again_waits_anew_for_those_that_were_silent_before() -> None:
    rig = Rig()
    rig.append(100)
    peer = rig.peer(PEER, 90)
    rig.look()
    peer.recent_active = False
    rig.raw.is_leader = False
    rig.append(100, ms=2 * SILENT_MS)
    rig.raw.is_leader, rig.raw.term = True, 3
    rig.look()
    assert rig.log.first_index() <= 91
    rig.look(SILENT_MS)
    assert rig.is_compacted


def test_a_follower_keeps_what_came_of_late_for_it_may_lead_next() -> None:
    rig = Rig()
    rig.raw.is_leader = False
    rig.append(100, ms=FOLLOWER_KEPT_MS - 1)
    assert rig.log.first_index() == 1
    rig.append(100, ms=FOLLOWER_KEPT_MS)
    assert 100 <= rig.kept <= 100 + MARK_ENTRIES + SNAPSHOT_COUNT


def test_a_follower_keeps_no_more_octets_than_the_bound() -> None:
    rig = Rig()
    rig.raw.is_leader = False
    rig.append(KEPT_ENTRIES)
    assert rig.kept == KEPT_ENTRIES
    rig.append(KEPT_ENTRIES)
    assert rig.kept <= KEPT_ENTRIES + SNAPSHOT_COUNT


@pytest.mark.parametrize("over", [0, 1])
def test_what_was_found_at_the_start_is_kept_as_one_piece_within_the_bound(over: int) -> None:
    rig = Rig(found_entries=KEPT_ENTRIES + over)
    rig.raw.is_leader = False
    rig.look()
    assert rig.is_compacted == bool(over) or rig.kept == KEPT_ENTRIES


TIGHT_ENTRY_OCTETS = TIGHT_OCTETS_MAX // 32


@pytest.mark.parametrize("is_leader", [False, True])
def test_a_log_whose_disk_is_tight_holds_no_more_than_fits_whatever_for(is_leader: bool) -> None:
    rig = Rig(kept_octets_max=2 * TIGHT_OCTETS_MAX, entry_octets=TIGHT_ENTRY_OCTETS)
    rig.raw.is_leader = is_leader
    rig.is_tight = True
    rig.peer(PEER, 0)
    rig.append(32)
    assert rig.kept == 32
    rig.append(100)
    assert 32 <= rig.kept <= 32 + SNAPSHOT_COUNT
    rig.is_tight = False
    rig.append(32)
    assert rig.kept >= 64


def test_few_entries_stay_on_a_tight_disk_however_large_they_are() -> None:
    rig = Rig(entry_octets=TIGHT_OCTETS_MAX)
    rig.is_tight = True
    rig.append(100)
    assert rig.is_compacted
    assert rig.kept >= CATCHUP_ENTRIES


def test_a_leader_whose_log_is_short_keeps_what_a_follower_lacks_within_the_same_bound() -> None:
    rig = Rig(kept_octets_max=2 * TIGHT_OCTETS_MAX, entry_octets=TIGHT_ENTRY_OCTETS)
    rig.append(100)
    rig.peer(PEER, 90)
    rig.is_short = True
    rig.append(90 + 32 - 100)
    assert rig.log.first_index() <= 91
    rig.append(3)
    assert rig.log.first_index() > 91


def test_octets_behind_an_index_are_told_within_a_step() -> None:
    rig = Rig()
    rig.append(KEPT_ENTRIES)
    for behind in (0, 1, MARK_ENTRIES, 5 * MARK_ENTRIES, KEPT_ENTRIES - MARK_ENTRIES):
        told = rig.marks.octets_behind(rig.log.last_index() - behind) // ENTRY_OCTETS
        assert behind <= told < behind + MARK_ENTRIES
    rig.append(MARK_ENTRIES)
    assert rig.marks.octets_behind(MARK_ENTRIES - 1) == FAR


def test_marks_are_few_whatever_comes() -> None:
    rig = Rig()
    rig.raw.is_leader = False
    rig.append(4 * KEPT_ENTRIES, ms=4 * FOLLOWER_KEPT_MS)
    assert len(rig.marks) <= MARKS_MAX + 1
