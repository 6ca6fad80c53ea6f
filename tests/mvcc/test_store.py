"""Puts, deletes, compactions and restarts: each test is one fact about revisions."""

from __future__ import annotations

from typing import Any

import pytest

from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.backend import BUCKET_META
from etcdtw.mvcc.errors import (
    CompactedError,
    FutureRevisionError,
    KeyNotFoundError,
    LeaseNotFoundError,
)
from etcdtw.mvcc.long_entry import STEP_OCTETS_MAX, LongEntryError, is_long_delete
from etcdtw.mvcc.store import WORK_BOUNDS, Store
from etcdtw.mvcc.work_bounds import FEW_KEYS_MAX, LONG_OCTETS_MIN, WorkBounds
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.mvccpb import KeyValue
from etcdtw.wire.requests import put_of, txn_of
from tests.support.late_answers import apply_txn
from tests.support.model_backend import ModelBackend


class StoreRig:
    """A store with the leases 7 and 8."""

    def __init__(self, bounds: WorkBounds = WORK_BOUNDS) -> None:
        self.backend: ModelBackend = ModelBackend()
        self.store = Store(self.backend, (7, 8).__contains__, bounds)
        self.store.has_watchers = True

    def put(self, key: bytes, value: bytes = b"v", **fields: Any) -> Applied:
        return self.store.apply_put(put_of(pb.PutRequest(key=key, value=value, **fields)))

    def delete(self, key: bytes, range_end: bytes = b"", prev_kv: bool = False) -> Applied:
        request = pb.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=prev_kv)
        return self.store.apply_delete_range(request)

    def kv(self, key: bytes) -> KeyValue | None:
        kvs = pb.RangeResponse.FromString(self.store.get_body(key)).kvs
        return kvs[0] if kvs else None

    def numbers(self, key: bytes) -> tuple[int, int, int]:
        kv = self.kv(key)
        assert kv is not None
        return kv.create_revision, kv.mod_revision, kv.version


@pytest.fixture
def rig() -> StoreRig:
    return StoreRig()


def test_an_empty_store_is_at_revision_one_and_the_first_write_at_two(rig: StoreRig) -> None:
    assert (rig.store.revision, rig.store.compact_revision) == (1, -1)
    assert rig.put(b"k").revision == 2


def test_a_put_keeps_the_creation_and_counts_the_versions(rig: StoreRig) -> None:
    rig.put(b"k")
    rig.put(b"other")
    rig.put(b"k")
    assert rig.numbers(b"k") == (2, 4, 2)


def test_a_put_of_the_same_value_is_a_new_revision_and_an_event(rig: StoreRig) -> None:
    rig.put(b"k")
    rig.store.take_events()
    assert rig.put(b"k").revision == 3
    assert len(rig.store.take_events()) == 1


def test_a_deleted_key_begins_anew(rig: StoreRig) -> None:
    rig.put(b"k")
    rig.put(b"k")
    rig.delete(b"k")
    rig.put(b"k")
    assert rig.numbers(b"k") == (5, 5, 1)


def test_a_put_says_nothing_but_the_previous_pair_when_asked(rig: StoreRig) -> None:
    assert rig.put(b"k", b"1", prev_kv=True).body == b""
    assert rig.put(b"k", b"2").body == b""
    response = pb.PutResponse.FromString(rig.put(b"k", b"3", prev_kv=True).body)
    assert (response.prev_kv.value, response.prev_kv.version) == (b"2", 2)


def test_an_unknown_lease_refuses_the_put(rig: StoreRig) -> None:
    applied = rig.put(b"k", lease=9, ignore_value=True)
    assert isinstance(applied.error, LeaseNotFoundError)
    assert (applied.revision, applied.body, rig.kv(b"k")) == (1, b"", None)


@pytest.mark.parametrize("flag", ["ignore_value", "ignore_lease"])
def test_what_is_to_be_kept_must_exist(rig: StoreRig, flag: str) -> None:
    applied = rig.put(b"k", b"", **{flag: True})
    assert isinstance(applied.error, KeyNotFoundError)
    assert rig.store.revision == 1
    assert rig.store.take_events() == []


def test_ignore_value_keeps_the_value_and_takes_the_lease(rig: StoreRig) -> None:
    rig.put(b"k", b"kept")
    rig.put(b"k", b"", ignore_value=True, lease=7)
    kv = rig.kv(b"k")
    assert kv is not None
    assert (kv.value, kv.lease, kv.version) == (b"kept", 7, 2)


def test_ignore_lease_keeps_the_lease_and_takes_the_value(rig: StoreRig) -> None:
    rig.put(b"k", lease=7)
    rig.put(b"k", b"new", ignore_lease=True)
    kv = rig.kv(b"k")
    assert kv is not None
    assert (kv.value, kv.lease) == (b"new", 7)
    assert rig.backend.attached(7) == [b"k"]


def test_the_last_put_decides_the_lease(rig: StoreRig) -> None:
    rig.put(b"k", lease=7)
    rig.put(b"k", lease=8)
    assert (rig.backend.attached(7), rig.backend.attached(8)) == ([], [b"k"])
    rig.put(b"k")
    assert rig.backend.attached(8) == []


def test_a_delete_detaches_the_lease(rig: StoreRig) -> None:
    rig.put(b"k", lease=7)
    rig.delete(b"k")
    assert rig.backend.attached(7) == []


def test_a_delete_of_nothing_is_no_revision(rig: StoreRig) -> None:
    rig.put(b"k")
    for key, range_end in ((b"x", b""), (b"x", b"\0"), (b"k", b"a"), (b"k", b"k")):
        applied = rig.delete(key, range_end)
        assert (applied.revision, applied.body) == (2, b"")


def test_a_delete_of_a_range_is_one_revision_in_key_order(rig: StoreRig) -> None:
    for key in (b"c", b"a", b"b", b"z"):
        rig.put(key, b"value of " + key)
    rig.store.take_events()
    applied = rig.delete(b"a", b"d", prev_kv=True)
    response = pb.DeleteRangeResponse.FromString(applied.body)
    assert (applied.revision, response.deleted) == (6, 3)
    assert [kv.value[-1:] for kv in response.prev_kvs] == [b"a", b"b", b"c"]
    assert [change[:3] for change in rig.backend.changes_from(6, 0, 6, 9)] == [
        (6, sub, True) for sub in range(3)
    ]
    assert rig.store.take_events() == [
        (key, True, KeyValue(key=key, mod_revision=6).SerializeToString())
        for key in (b"a", b"b", b"c")
    ]


def test_a_delete_does_not_return_what_was_not_asked_for(rig: StoreRig) -> None:
    rig.put(b"k")
    assert rig.delete(b"k").body == b"\x10\x01"


def test_the_keys_of_a_lease_go_in_one_revision_and_in_order(rig: StoreRig) -> None:
    for key in (b"b", b"a", b"gone"):
        rig.put(key, lease=7)
    rig.delete(b"gone")
    rig.store.take_events()
    applied = rig.store.delete_attached([b"gone", b"b", b"a"])
    assert applied is not None
    assert applied.revision == 6
    assert [key for key, _, _ in rig.store.take_events()] == [b"a", b"b"]
    assert rig.backend.attached(7) == []


def test_a_lease_without_keys_ends_without_a_revision(rig: StoreRig) -> None:
    applied = rig.store.delete_attached([])
    assert applied is not None
    assert applied.revision == 1


def test_large_values_of_a_lease_are_left_for_steps() -> None:
    rig = StoreRig(WorkBounds(long_octets_min=300))
    for key in (b"a", b"b", b"c", b"d"):
        rig.put(key, bytes(90), lease=7)
    before = dict(rig.backend.revisions)
    assert rig.store.delete_attached([b"a", b"b", b"c", b"d"]) is None
    assert rig.backend.revisions == before
    assert rig.store.delete_attached([b"a", b"b"]) is not None
    assert rig.backend.attached(7) == [b"c", b"d"]


def test_events_are_collected_only_while_somebody_watches(rig: StoreRig) -> None:
    rig.store.has_watchers = False
    rig.put(b"k")
    assert rig.store.events == []
    rig.store.has_watchers = True
    assert rig.store.has_watchers
    rig.put(b"k", b"w")
    assert [(key, is_delete) for key, is_delete, _ in rig.store.events] == [(b"k", False)]
    ((_, _, record),) = rig.store.take_events()
    assert record == rig.backend.get(b"k")
    assert rig.store.take_events() == []


# Compactions.


@pytest.mark.parametrize(
    ("revision", "error"),
    [(3, CompactedError), (2, CompactedError), (0, CompactedError), (6, FutureRevisionError)],
)
def test_a_compaction_goes_forward_and_not_beyond_now(
    rig: StoreRig, revision: int, error: type[Exception]
) -> None:
    for _ in range(4):
        rig.put(b"k")
    rig.store.apply_compaction(pb.CompactionRequest(revision=3))
    applied = rig.store.apply_compaction(pb.CompactionRequest(revision=revision))
    assert isinstance(applied.error, error)
    assert rig.backend.compacted == [3]


def test_a_compaction_to_now_is_allowed_and_no_revision(rig: StoreRig) -> None:
    rig.put(b"k")
    applied = rig.store.apply_compaction(pb.CompactionRequest(revision=2))
    assert (applied.error, applied.revision, rig.store.compact_revision) == (None, 2, 2)


def test_a_fresh_store_can_be_compacted_to_zero_once(rig: StoreRig) -> None:
    request = pb.CompactionRequest(revision=0)
    assert rig.store.apply_compaction(request).error is None
    assert isinstance(rig.store.apply_compaction(request).error, CompactedError)


def test_a_compaction_is_marked_before_it_begins(rig: StoreRig) -> None:
    for _ in range(300):
        rig.put(b"k")
    rig.store.apply_compaction(pb.CompactionRequest(revision=258))
    mark = rig.backend.bucket_get(BUCKET_META, b"scheduledCompactRev")
    assert mark == bytes(6) + b"\x01\x02_" + bytes(8)


# Restarts.


def test_a_store_goes_on_where_it_stood(rig: StoreRig) -> None:
    rig.put(b"k")
    rig.put(b"k")
    rig.store.apply_compaction(pb.CompactionRequest(revision=2))
    again = Store(rig.backend, lambda lease_id: True)
    again.restore(3)
    assert (again.revision, again.compact_revision) == (3, 2)
    assert again.apply_put(put_of(pb.PutRequest(key=b"k"))).revision == 4
    assert pb.RangeResponse.FromString(again.get_body(b"k")).kvs[0].version == 3


def test_a_compaction_that_was_interrupted_counts_as_done(rig: StoreRig) -> None:
    rig.put(b"k")
    rig.put(b"k")
    rig.store.apply_compaction(pb.CompactionRequest(revision=3))
    rig.backend.bucket_delete(BUCKET_META, b"finishedCompactRev")
    again = Store(rig.backend, lambda lease_id: True)
    again.restore(3)
    assert again.compact_revision == 3


@pytest.mark.parametrize("revision", [0, 1])
def test_an_empty_backend_is_an_empty_store(revision: int) -> None:
    store = Store(ModelBackend(), lambda lease_id: True)
    store.restore(revision)
    assert (store.revision, store.compact_revision) == (1, -1)


def test_an_outcome_can_be_read_by_people() -> None:
    assert repr(Applied(3, b"x")) == "Applied(revision=3, body=b'x', error=None)"


@pytest.mark.parametrize("is_watched", [False, True])
def test_a_snapshot_amid_a_long_entry_leaves_nothing_of_it(is_watched: bool) -> None:
    rig = StoreRig(WorkBounds(long_keys_min=3, step_keys_max=1))
    rig.store.has_watchers = is_watched
    for key in (b"a", b"b", b"c", b"d"):
        rig.put(key)
    rig.store.take_events()
    with pytest.raises(LongEntryError) as long:
        rig.delete(b"a", b"z")
    next(long.value.steps)
    next(long.value.steps)
    # The snapshot's state takes the place of this one; here it is an empty one at revision 9.
    rig.backend.__dict__.update(ModelBackend().__dict__)
    rig.store.restore(9)
    assert rig.delete(b"absent").revision == 9
    assert rig.put(b"k").revision == 10
    assert (10, 0) in rig.backend.revisions, "the first change of a revision has sub 0"
    assert [key for key, _, _ in rig.store.take_events()] == ([b"k"] if is_watched else [])
    assert rig.store.events == []


class WideBackend(ModelBackend):
    """Remembers the most octets of records that were handed out at once."""

    def __init__(self) -> None:
        super().__init__()
        self.octets_max = 0

    def frames(
        self, start: bytes, end: bytes | None, limit: int = 0, octets_max: int = 0
    ) -> list[bytes]:
        frames = super().frames(start, end, limit, octets_max)
        self.octets_max = max(self.octets_max, sum(map(len, frames)))
        return frames

    def rows(
        self, start: bytes, end: bytes | None, revision: int, rows_max: int, octets_max: int
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        rows, behind = super().rows(start, end, revision, rows_max, octets_max)
        self.octets_max = max(self.octets_max, sum([len(frame) for _, frame in rows]))
        return rows, behind


@pytest.mark.parametrize("is_compared", [False, True])
def test_a_range_of_large_values_is_never_held_at_once(is_compared: bool) -> None:
    rig = StoreRig()
    backend = rig.backend = WideBackend()
    rig.store = Store(backend, (7, 8).__contains__)
    for i in range(12):
        rig.put(b"k%02d" % i, bytes(STEP_OCTETS_MAX // 3))
    if is_compared:
        compare = pb.Compare(key=b"k", range_end=b"l", target=pb.Compare.VERSION, version=1)
        put = pb.RequestOp(request_put=pb.PutRequest(key=b"k00"))
        applied = apply_txn(rig.store, txn_of(pb.TxnRequest(compare=[compare], success=[put])))
        assert pb.TxnResponse.FromString(applied.body).succeeded
    else:
        with pytest.raises(LongEntryError) as long:
            rig.delete(b"k", b"l")
        assert backend.octets_max < LONG_OCTETS_MIN + STEP_OCTETS_MAX
        backend.octets_max = 0
        for _ in range(3):
            next(long.value.steps)
        for _ in long.value.steps:
            pass
        assert rig.kv(b"k11") is None
    assert 0 < backend.octets_max < 2 * STEP_OCTETS_MAX


@pytest.mark.parametrize(("size", "is_long"), [(99, False), (100, True)])
def test_a_delete_is_long_by_the_octets_of_its_records_too(size: int, is_long: bool) -> None:
    rig = StoreRig()
    for i in range(10):
        rig.put(b"k%02d" % i)
    octets = sum(map(len, rig.backend.frames(b"k", b"l")))
    bounds = WorkBounds(long_octets_min=octets * 100 // size)
    ranges = [(b"k", b"k05"), (b"k05", b"l")]
    assert is_long_delete(rig.backend, ranges, bounds) is is_long
    assert not is_long_delete(rig.backend, [(b"k", b"k04")], WorkBounds(long_octets_min=1))


class ReadBackend(ModelBackend):
    """Counts the records that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def frames(
        self, start: bytes, end: bytes | None, limit: int = 0, octets_max: int = 0
    ) -> list[bytes]:
        frames = super().frames(start, end, limit, octets_max)
        self.reads += len(frames)
        return frames


@pytest.mark.parametrize("count", [FEW_KEYS_MAX, FEW_KEYS_MAX + 1, 1200])
@pytest.mark.parametrize("prev_kv", [False, True])
def test_a_deleted_range_is_read_once(count: int, prev_kv: bool) -> None:
    rig = StoreRig()
    backend = rig.backend = ReadBackend()
    rig.store = Store(backend, (7, 8).__contains__)
    for i in range(count):
        rig.put(b"k%04d" % i)
    request = pb.DeleteRangeRequest(key=b"k", range_end=b"l", prev_kv=prev_kv)
    response = pb.DeleteRangeResponse.FromString(rig.store.apply_delete_range(request).body)
    assert backend.reads == count
    assert response.deleted == count
    keys = [kv.key for kv in response.prev_kvs]
    assert keys == ([b"k%04d" % i for i in range(count)] if prev_kv else [])
    assert backend.count(b"", None) == 0
