"""Entries that touch very many keys, applied by a real node over a state on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from etcdtw.apply.applier import (
    FIELD_DELETE_RANGE,
    FIELD_LEASE_GRANT,
    FIELD_LEASE_REVOKE,
    FIELD_PUT,
    FIELD_TXN,
)
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.state import LmdbState
from etcdtw.storage.writer.feed import InlineStateWriter
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.record import Record
from etcdtw.wire.requests import plain, txn_of
from tests.support.model_state import State
from tests.support.node_rig import CONFIG, NodeRig

KEYS = 40
LEASE = 7
ALL = pb.DeleteRangeRequest(key=b"k", range_end=b"l", prev_kv=True)
LATER = b"z"
SMALL = WorkBounds(long_keys_min=10, step_keys_max=3)


class LongRig(NodeRig):
    """A node for which ten keys are many, and one step a turn is much."""

    def __init__(self, path: Path, bounds: WorkBounds = SMALL) -> None:
        self.lmdb: LmdbState = open_state(path, pytest.fail, map_size=1 << 26)
        assert isinstance(self.lmdb._writer, InlineStateWriter)
        self.writer = self.lmdb._writer
        super().__init__(
            state=cast(State, self.lmdb), bounds=bounds, config=replace(CONFIG, long_work_s=0.0)
        )

    def propose(self, field: int, request: Any) -> None:
        message = request.SerializeToString()
        self.node.propose(field, message, plain(request), self.call, self._done)

    def fill(self) -> None:
        self.propose(FIELD_LEASE_GRANT, pb.LeaseGrantRequest(ID=LEASE, TTL=1000))
        for i in range(KEYS):
            size = 600 if i == KEYS // 2 else 3
            key = (b"k%03d" % i).ljust(size, b"x")
            self.propose(FIELD_PUT, pb.PutRequest(key=key, value=b"v%d" % i, lease=LEASE))
        self.run()
        self.outcomes.clear()

    def turn(self) -> None:
        """Let one turn happen.  `Clock.advance` would take those that it asks for as well."""
        for delayed in self.clock.calls[:1]:
            if delayed.getTime() <= self.clock.seconds():
                self.clock.calls.remove(delayed)
                delayed.called = 1
                delayed.func(*delayed.args, **delayed.kw)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[LongRig]:
    made = LongRig(tmp_path / "state")
    made.start()
    made.fill()
    yield made
    made.lmdb.close()


def delete_plainly(rig: LongRig) -> None:
    rig.propose(FIELD_DELETE_RANGE, ALL)


def delete_in_a_txn(rig: LongRig) -> None:
    nested = pb.TxnRequest(success=[pb.RequestOp(request_delete_range=ALL)])
    single = pb.DeleteRangeRequest(key=b"none")
    ops = [
        pb.RequestOp(request_put=pb.PutRequest(key=b"y", value=b"1")),
        pb.RequestOp(request_delete_range=single),
        pb.RequestOp(request_txn=nested),
        pb.RequestOp(request_range=pb.RangeRequest(key=b"k", range_end=b"z")),
    ]
    rig.propose(FIELD_TXN, pb.TxnRequest(success=ops))


def turns_until_applied(rig: LongRig) -> int:
    revision = rig.node.store.revision
    turns = 0
    while rig.node.store.revision == revision:
        rig.turn()
        turns += 1
        assert turns < 1000
    return turns


def revoke(rig: LongRig) -> None:
    rig.propose(FIELD_LEASE_REVOKE, pb.LeaseRevokeRequest(ID=LEASE))


KINDS = pytest.mark.parametrize("begin", [delete_plainly, delete_in_a_txn, revoke])


@pytest.mark.parametrize(
    ("begin", "kind"),
    [(delete_plainly, "DeleteRange"), (delete_in_a_txn, "Txn"), (revoke, "LeaseRevoke")],
)
def test_a_long_entry_is_a_request_whose_time_is_counted(
    rig: LongRig, begin: Callable[[LongRig], None], kind: str
) -> None:
    begin(rig)
    rig.run()
    requests = rig.node.durations.request_s
    assert requests[kind, "true"].count == 1
    assert len(rig.outcomes) == 1


@KINDS
def test_a_long_entry_stays_out_of_sight_until_it_is_complete(
    rig: LongRig, begin: Callable[[LongRig], None]
) -> None:
    revision = rig.node.store.revision
    before = rig.lmdb.frames(b"", None)
    begin(rig)
    rig.propose(FIELD_PUT, pb.PutRequest(key=LATER))
    turns = 0
    while rig.node.store.revision == revision:
        assert rig.lmdb.frames(b"", None) == before
        assert rig.lmdb.count(b"", None) == len(rig.lmdb.keys(b"", None)) == KEYS
        assert rig.lmdb.attached(LEASE) == rig.lmdb.keys(b"k", b"l")
        assert rig.lmdb.changes_from(revision + 1, 0, revision + 9, 100) == []
        assert rig.node.lessor.exists(LEASE)
        assert rig.outcomes == []
        rig.turn()
        turns += 1
    assert turns > KEYS // 3
    rig.run()
    assert [applied.error for applied in rig.outcomes] == [None, None]
    assert [applied.revision for applied in rig.outcomes] == [revision + 1, revision + 2]
    assert rig.lmdb.count(b"k", b"l") == 0
    assert rig.lmdb.keys(b"k", b"l") == rig.lmdb.frames(b"k", b"l") == []
    deleted = [
        row for row in rig.lmdb.changes_from(revision + 1, 0, revision + 1, 100) if row.is_tombstone
    ]
    assert len(deleted) == KEYS
    assert rig.lmdb.attached(LEASE) == []
    assert rig.node.applied_index == rig.node.commit_index


@KINDS
def test_a_long_entry_does_what_a_short_one_does(
    rig: LongRig, begin: Callable[[LongRig], None], tmp_path: Path
) -> None:
    begin(rig)
    while not rig.outcomes:
        rig.turn()
    other = LongRig(tmp_path / "other", WorkBounds(long_keys_min=1 << 30))
    other.start()
    other.fill()
    begin(other)
    other.run()
    assert [a.body for a in rig.outcomes] == [a.body for a in other.outcomes]
    assert rig.lmdb.changes_from(1, 0, 1000, 1000) == other.lmdb.changes_from(1, 0, 1000, 1000)
    assert rig.lmdb.frames(b"", None) == other.lmdb.frames(b"", None)
    hashes: list[object] = []
    for state in (rig.lmdb, other.lmdb):
        state.hash_kv(rig.node.store.revision, -1, hashes.append)
    assert hashes[0] == hashes[1]
    other.lmdb.close()


@KINDS
def test_a_crash_in_the_midst_leaves_nothing_of_a_long_entry(
    rig: LongRig, begin: Callable[[LongRig], None], tmp_path: Path
) -> None:
    revision = rig.node.store.revision
    begin(rig)
    for _ in range(12):  # a lease's keys are gathered first
        rig.turn()
    told: list[str] = []
    rig.lmdb.flush(lambda: told.append("durable"))
    rig.lmdb.tick(10_000_000)
    assert told == []
    rig.lmdb.close()
    again = open_state(tmp_path / "state", pytest.fail, map_size=1 << 26)
    assert (again.revision, again.count(b"", None)) == (revision, KEYS)
    assert again.applied_index == rig.node.applied_index < rig.node.commit_index
    again.close()


def test_a_read_txn_in_the_midst_reads_the_old_revision(rig: LongRig) -> None:
    read = pb.TxnRequest(
        success=[pb.RequestOp(request_range=pb.RangeRequest(key=b"k", range_end=b"l"))]
    )
    revision = rig.node.store.revision
    expected = rig.node.store.read_txn(txn_of(read)).body
    delete_plainly(rig)
    for _ in range(6):
        rig.turn()
        found = rig.node.store.read_txn(txn_of(read))
        assert (found.revision, found.body) == (revision, expected)
    rig.run(1.0)
    assert rig.node.store.revision == revision + 1


@pytest.mark.parametrize("comes_at", [0, 5])
def test_a_watcher_gets_all_of_a_long_entry_whenever_it_came(rig: LongRig, comes_at: int) -> None:
    sent: list[bytes] = []

    def send(responses: list[bytes]) -> bool:
        sent.extend(responses)
        return False

    delete_plainly(rig)
    for turn in range(40):
        if turn == comes_at:
            stream = rig.node.hub.open(send, 0)
            stream.create(pb.WatchCreateRequest(key=b"\0", range_end=b"\0"))
        rig.turn()
    events = [event for octets in sent for event in pb.WatchResponse.FromString(octets).events]
    assert len(events) == KEYS
    assert not rig.node.store.events


def test_a_long_entry_does_not_fill_the_overlay_but_what_follows_does(rig: LongRig) -> None:
    rig.writer.is_held = True
    rig.run()
    rig.writer.is_held = False
    delete_plainly(rig)
    while not rig.outcomes:
        rig.turn()
    generation = rig.lmdb._open
    assert generation.excused == generation.octets > 0
    rig.put(b"after")
    rig.run()
    assert generation.octets > generation.excused


def test_a_node_that_stops_brings_a_long_entry_to_its_end(rig: LongRig) -> None:
    delete_plainly(rig)
    for _ in range(4):
        rig.turn()
    told: list[str] = []
    rig.node.stop()
    rig.lmdb.flush(lambda: told.append("durable"))
    assert told == ["durable"]
    assert rig.lmdb.count(b"", None) == 0


def test_two_long_entries_in_one_batch_follow_one_another(rig: LongRig) -> None:
    delete_plainly(rig)
    for i in range(KEYS):
        rig.propose(FIELD_PUT, pb.PutRequest(key=b"k%03d" % i))
    delete_plainly(rig)
    rig.run(5.0)
    assert len(rig.outcomes) == KEYS + 2
    assert rig.lmdb.count(b"", None) == 0
    assert rig.node.applied_index == rig.node.commit_index


@KINDS
def test_few_keys_with_much_in_them_make_a_long_entry_too(
    tmp_path: Path, begin: Callable[[LongRig], None]
) -> None:
    bounds = WorkBounds(long_keys_min=10**6, long_octets_min=500, step_keys_max=3)
    rig = LongRig(tmp_path / "state", bounds)
    rig.start()
    rig.fill()
    begin(rig)
    assert turns_until_applied(rig) > KEYS // 3
    assert rig.lmdb.count(b"k", b"l") == 0
    rig.lmdb.close()


def test_a_txn_that_keeps_much_is_a_long_entry_too(tmp_path: Path) -> None:
    bounds = WorkBounds(long_octets_min=500)
    rig = LongRig(tmp_path / "state", bounds)
    rig.start()
    rig.fill()
    keys = rig.lmdb.keys(b"k", b"l")
    puts = [pb.PutRequest(key=key, ignore_value=True, prev_kv=True) for key in keys]
    ops = [pb.RequestOp(request_put=put) for put in puts]
    rig.propose(FIELD_TXN, pb.TxnRequest(success=ops))
    assert turns_until_applied(rig) > len(keys)
    for i, key in enumerate(keys):
        record = Record(rig.lmdb.get(key) or b"")
        assert (record.version, record.value) == (2, b"v%d" % i)
    assert rig.lmdb.attached(LEASE) == []
    rig.lmdb.close()
