"""Ranges by the letter: each test is one fact about RangeRequest."""

from __future__ import annotations

from typing import Any

import pytest

from etcdtw.mvcc.errors import CompactedError, FutureRevisionError
from etcdtw.mvcc.store import Store
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import put_of
from tests.support.model_backend import ModelBackend

SORT_TARGETS = [pb.RangeRequest.VERSION, pb.RangeRequest.CREATE, pb.RangeRequest.MOD]


class RangeRig:
    """A store, read by keyword."""

    def __init__(self) -> None:
        self.backend = ModelBackend()
        self.store = Store(self.backend, lambda lease_id: True)

    def put(self, key: bytes, value: bytes = b"v", lease: int = 0) -> None:
        self.store.apply_put(put_of(pb.PutRequest(key=key, value=value, lease=lease)))

    def read(self, key: bytes = b"\0", range_end: bytes = b"\0", **fields: Any) -> pb.RangeResponse:
        request = pb.RangeRequest(key=key, range_end=range_end, **fields)
        body = self.store.range(request)
        assert self.store.open_range(request) == body
        return pb.RangeResponse.FromString(body)

    def keys(self, key: bytes = b"\0", range_end: bytes = b"\0", **fields: Any) -> list[bytes]:
        return [kv.key for kv in self.read(key, range_end, **fields).kvs]


@pytest.fixture
def rig() -> RangeRig:
    """Keys a, b, c, d at revisions 2 to 5; then b again, so that its version is 2."""
    rig = RangeRig()
    for key, value in ((b"a", b"4"), (b"b", b"9"), (b"c", b"2"), (b"d", b"1")):
        rig.put(key, value)
    rig.put(b"b", b"3")
    return rig


@pytest.mark.parametrize(
    ("key", "range_end", "found"),
    [
        (b"b", b"", [b"b"]),
        (b"bb", b"", []),
        (b"b", b"d", [b"b", b"c"]),
        (b"b", b"\0", [b"b", b"c", b"d"]),
        (b"\0", b"\0", [b"a", b"b", b"c", b"d"]),
        (b"c", b"c", []),
        (b"c", b"a", []),
        (b"d\0", b"\0", []),
    ],
)
def test_range_end_is_exclusive_or_open(
    rig: RangeRig, key: bytes, range_end: bytes, found: list[bytes]
) -> None:
    response = rig.read(key, range_end)
    assert [kv.key for kv in response.kvs] == found
    assert (response.count, response.more) == (len(found), False)


def test_keys_come_in_the_order_of_their_octets() -> None:
    rig = RangeRig()
    keys = [b"\xff", b"a\0", b"a", b"\x01", b"aa", b"B"]
    for key in keys:
        rig.put(key)
    assert rig.keys() == sorted(keys)


@pytest.mark.parametrize("revision", [0, -1, -(2**63), 6])
def test_a_revision_of_zero_or_less_is_the_current_one(rig: RangeRig, revision: int) -> None:
    assert rig.read(b"b", b"", revision=revision).kvs[0].value == b"3"


@pytest.mark.parametrize(
    ("revision", "found"), [(1, []), (2, [b"a"]), (4, [b"a", b"b", b"c"]), (5, None)]
)
def test_an_old_revision_is_read_as_it_was(
    rig: RangeRig, revision: int, found: list[bytes] | None
) -> None:
    response = rig.read(revision=revision)
    assert [kv.key for kv in response.kvs] == (found or [b"a", b"b", b"c", b"d"][: revision - 1])
    single = rig.read(b"b", b"", revision=revision)
    assert [kv.value for kv in single.kvs] == ([b"9"] if revision > 2 else [])


def test_a_future_revision_is_refused_even_for_an_empty_range(rig: RangeRig) -> None:
    with pytest.raises(FutureRevisionError):
        rig.read(b"b", b"a", revision=7)


def test_the_compact_revision_itself_can_be_read(rig: RangeRig) -> None:
    rig.store.apply_compaction(pb.CompactionRequest(revision=3))
    assert rig.keys(revision=3) == [b"a", b"b"]
    with pytest.raises(CompactedError):
        rig.read(revision=2)


@pytest.mark.parametrize(
    ("limit", "found", "more"),
    [(-1, 4, False), (0, 4, False), (1, 1, True), (3, 3, True), (4, 4, False), (5, 4, False)],
)
@pytest.mark.parametrize("revision", [0, 5])
def test_a_limit_cuts_the_keys_but_not_the_count(
    rig: RangeRig, limit: int, found: int, more: bool, revision: int
) -> None:
    response = rig.read(limit=limit, revision=revision)
    assert (len(response.kvs), response.more, response.count) == (found, more, 4)


def test_count_only_has_neither_keys_nor_more_and_ignores_filters(rig: RangeRig) -> None:
    response = rig.read(count_only=True, limit=1, min_mod_revision=99, keys_only=True)
    assert response == pb.RangeResponse(count=4)
    assert rig.read(count_only=True, revision=3).count == 2
    assert rig.read(b"a", b"", count_only=True) == pb.RangeResponse(count=1)
    assert rig.read(b"z", b"", count_only=True) == pb.RangeResponse()


@pytest.mark.parametrize("range_end", [b"", b"\0"])
def test_keys_only_drops_the_value_and_keeps_the_rest(range_end: bytes) -> None:
    rig = RangeRig()
    rig.put(b"k", b"v", lease=7)
    (kv,) = rig.read(b"k", range_end, keys_only=True).kvs
    assert (kv.value, kv.lease, kv.mod_revision, kv.version) == (b"", 7, 2, 1)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"min_mod_revision": 5}, [b"b", b"d"]),
        ({"max_mod_revision": 4}, [b"a", b"c"]),
        ({"min_create_revision": 3, "max_create_revision": 4}, [b"b", b"c"]),
        ({"min_mod_revision": 6, "max_mod_revision": 6}, [b"b"]),
        ({"min_mod_revision": 5, "max_mod_revision": 3}, []),
    ],
)
def test_revision_filters_are_inclusive_and_leave_the_count(
    rig: RangeRig, fields: dict[str, Any], found: list[bytes]
) -> None:
    response = rig.read(**fields)
    assert [kv.key for kv in response.kvs] == found
    assert response.count == 4


def test_the_limit_is_applied_after_the_filters(rig: RangeRig) -> None:
    response = rig.read(min_mod_revision=4, limit=2)
    assert [kv.key for kv in response.kvs] == [b"b", b"c"]
    assert response.more
    assert not rig.read(min_mod_revision=4, limit=3).more


def test_a_filter_can_hide_a_single_key(rig: RangeRig) -> None:
    response = rig.read(b"a", b"", min_mod_revision=3)
    assert (len(response.kvs), response.count) == (0, 1)


@pytest.mark.parametrize(
    ("target", "ascending"),
    [
        (pb.RangeRequest.KEY, b"abcd"),
        (pb.RangeRequest.CREATE, b"abcd"),
        (pb.RangeRequest.MOD, b"acdb"),
        (pb.RangeRequest.VALUE, b"dcba"),
        (pb.RangeRequest.VERSION, b"acdb"),
    ],
)
def test_a_range_is_sorted_by_its_target(rig: RangeRig, target: int, ascending: bytes) -> None:
    up = rig.keys(sort_target=target, sort_order=pb.RangeRequest.ASCEND)
    down = rig.keys(sort_target=target, sort_order=pb.RangeRequest.DESCEND)
    assert b"".join(up) == ascending
    if target != pb.RangeRequest.VERSION:  # ties have no order
        assert down == up[::-1]
    assert rig.keys(sort_target=target) == up, "without an order it is ascending"


def test_an_explicit_order_sorts_everything_before_the_limit(rig: RangeRig) -> None:
    fields: dict[str, Any] = {
        "sort_target": pb.RangeRequest.VALUE,
        "sort_order": pb.RangeRequest.ASCEND,
    }
    response = rig.read(limit=2, **fields)
    assert [kv.key for kv in response.kvs] == [b"d", b"c"]
    assert (response.more, response.count) == (True, 4)


def test_without_an_order_the_limit_comes_before_the_sorting(rig: RangeRig) -> None:
    # The limit and one key more are taken in key order (a, b, c), sorted (c, b, a) and cut.
    response = rig.read(limit=2, sort_target=pb.RangeRequest.VALUE)
    assert [kv.key for kv in response.kvs] == [b"c", b"b"]
    assert (response.more, response.count) == (True, 4)


@pytest.mark.parametrize("target", [-1, 5, 99])
def test_a_target_that_is_none_sorts_nothing(rig: RangeRig, target: int) -> None:
    assert rig.keys(sort_target=target) == [b"a", b"b", b"c", b"d"]


def test_one_key_read_the_short_way_is_the_same() -> None:
    rig = RangeRig()
    rig.put(b"k", b"v" * 300)
    for key in (b"k", b"absent"):
        assert rig.store.get_body(key) == rig.store.range(pb.RangeRequest(key=key))
