"""Ranges in slices equal ranges at once, whatever is asked."""

from __future__ import annotations

from random import Random

import pytest

from etcdtw.mvcc.errors import CompactedError
from etcdtw.mvcc.slices import (
    ANSWER_OCTETS_MAX,
    SLICE_OCTETS_MAX,
    PinnedRange,
    RangeSlices,
    open_slices,
)
from etcdtw.mvcc.store import Store
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import put_of
from tests.support.model_backend import ModelBackend

KEYS_COUNT = 20


SMALL = WorkBounds(slice_keys_max=3, slice_past_keys_max=2)


class SlicesRig:
    """A store of 20 keys with a past, read three keys at a time."""

    def __init__(self, bounds: WorkBounds = SMALL) -> None:
        self.backend = ModelBackend()
        self.store = Store(self.backend, lambda lease_id: True, bounds)
        for i in range(KEYS_COUNT):
            self.put(b"%02d" % i, b"%d" % (i * 7 % 10))
        for i in range(0, KEYS_COUNT, 3):
            self.put(b"%02d" % i, b"again")
        self.store.apply_delete_range(pb.DeleteRangeRequest(key=b"05"))

    def put(self, key: bytes, value: bytes) -> None:
        self.store.apply_put(put_of(pb.PutRequest(key=key, value=value, lease=5)))

    def drain(self, request: pb.RangeRequest) -> bytes:
        body = open_slices(self.backend, self.store, request)
        if isinstance(body, bytes):
            return body
        parts: list[bytes] = []
        while (part := body.step()) is not None:
            parts.append(part)
        assert body.step() is None
        return b"".join(parts)


@pytest.fixture
def rig() -> SlicesRig:
    return SlicesRig()


@pytest.mark.parametrize("seed", range(30))
def test_slices_join_to_what_is_read_at_once(rig: SlicesRig, seed: int) -> None:
    random = Random(seed)
    for _ in range(15):
        request = pb.RangeRequest(
            key=random.choice([b"\0", b"05", b"99"]),
            range_end=random.choice([b"\0", b"\0", b"15", b"04", b""]),
            limit=random.choice([0, 0, 1, 3, 4, 12, 19, 20]),
            revision=random.choice([0, 0, 10, 21, 26, 28, 29]),
            sort_order=random.choice([0, 0, 1, 2]),
            sort_target=random.choice([0, 0, 1, 2, 3, 4]),
            keys_only=random.random() < 0.2,
            count_only=random.random() < 0.1,
            min_mod_revision=random.choice([0, 0, 5, 15]),
            max_create_revision=random.choice([0, 0, 10]),
        )
        assert rig.drain(request) == rig.store.range(request), request


@pytest.mark.parametrize("order", [pb.RangeRequest.ASCEND, pb.RangeRequest.DESCEND])
def test_a_sorted_range_keeps_no_more_than_its_limit_while_it_is_read(
    rig: SlicesRig, order: int
) -> None:
    fields = {"sort_target": pb.RangeRequest.MOD, "sort_order": order, "limit": 2}
    request = pb.RangeRequest(key=b"\0", range_end=b"\0", **fields)  # type: ignore[arg-type]
    slices = rig.store.open_range(request)
    assert isinstance(slices, RangeSlices)
    while slices.step() is not None:
        assert slices.kept <= 2
    assert rig.drain(request) == rig.store.range(request)


def test_a_sorted_range_goes_out_in_slices_too(rig: SlicesRig) -> None:
    request = pb.RangeRequest(key=b"\0", range_end=b"\0", sort_order=pb.RangeRequest.DESCEND)
    slices = rig.store.open_range(request)
    assert isinstance(slices, RangeSlices)
    counts = []
    while (part := slices.step()) is not None:
        counts.append(len(pb.RangeResponse.FromString(part).kvs))
    assert max(counts) == 3
    assert sum(counts) == KEYS_COUNT - 1


def test_an_answer_over_a_mebibyte_is_sliced_and_each_slice_is_smaller() -> None:
    rig = SlicesRig()
    value = b"v" * (SLICE_OCTETS_MAX // 4)
    for i in range(24):
        rig.put(b"%02d" % i, value)
    request = pb.RangeRequest(key=b"\0", range_end=b"\0")
    slices = rig.store.open_range(request)
    assert isinstance(slices, RangeSlices)
    sizes = []
    parts = []
    while (part := slices.step()) is not None:
        sizes.append(len(part))
        parts.append(part)
    assert max(sizes) <= SLICE_OCTETS_MAX
    assert b"".join(parts) == rig.store.range(request)


@pytest.mark.parametrize(("surplus", "is_sliced"), [(0, False), (1, True)])
def test_an_answer_of_more_than_a_mebibyte_is_not_read_at_once(
    surplus: int, is_sliced: bool
) -> None:
    rig = SlicesRig()
    frame_overhead = len(rig.backend.frames(b"19", None)[0]) - 1 + 2 + 2
    rig.put(b"19", b"v" * (ANSWER_OCTETS_MAX - frame_overhead + surplus))
    assert len(rig.backend.frames(b"19", None)[0]) == ANSWER_OCTETS_MAX + surplus
    answer = rig.store.open_range(pb.RangeRequest(key=b"19", range_end=b"\0"))
    assert isinstance(answer, RangeSlices) is is_sliced


def test_a_value_larger_than_a_slice_is_a_slice_of_its_own() -> None:
    rig = SlicesRig()
    rig.put(b"30", b"v" * (ANSWER_OCTETS_MAX + 1))
    rig.put(b"31", b"w")
    pinned = rig.store.pin(b"30", None, rig.store.revision, 0)
    assert len(pinned.read(10)) == 1
    assert not pinned.is_done
    assert len(pinned.read(10)) == 1
    assert (pinned.is_done, pinned.count, pinned.more) == (True, 2, False)


def test_a_single_value_larger_than_a_slice_is_the_whole_of_it() -> None:
    rig = SlicesRig()
    rig.put(b"30", b"v" * (ANSWER_OCTETS_MAX + 1))
    request = pb.RangeRequest(key=b"30", range_end=b"\0")
    assert rig.drain(request) == rig.store.range(request)


def test_a_small_past_range_is_counted_at_once() -> None:
    rig = SlicesRig(WorkBounds())
    request = pb.RangeRequest(key=b"\0", range_end=b"\0", revision=10, count_only=True)
    assert rig.store.open_range(request, b"head") == b"head\x20\x09"


def test_a_pinned_range_does_not_see_later_changes(rig: SlicesRig) -> None:
    pinned = rig.store.pin(b"\0", None, rig.store.revision, 0)
    before = rig.backend.frames(b"\0", None)
    seen = pinned.read(3)
    rig.put(b"04", b"later")
    rig.store.apply_delete_range(pb.DeleteRangeRequest(key=b"1", range_end=b"2"))
    while not pinned.is_done:
        seen += pinned.read(3)
    assert seen == before
    assert pinned.count == KEYS_COUNT - 1


def test_the_past_is_read_in_smaller_slices(rig: SlicesRig) -> None:
    past = rig.store.pin(b"\0", None, 10, 0)
    assert len(past.read(3)) == 2
    assert len(rig.store.pin(b"\0", None, rig.store.revision, 0).read(3)) == 3


def test_a_pinned_range_cannot_outlive_a_compaction(rig: SlicesRig) -> None:
    pinned = rig.store.pin(b"\0", None, rig.store.revision, 0)
    pinned.read(3)
    rig.store.apply_compaction(pb.CompactionRequest(revision=pinned.revision))
    pinned.read(3)
    rig.put(b"k", b"v")
    rig.store.apply_compaction(pb.CompactionRequest(revision=rig.store.revision))
    with pytest.raises(CompactedError):
        pinned.read(3)


def test_a_backwards_range_is_done_before_it_begins(rig: SlicesRig) -> None:
    pinned = PinnedRange(rig.store.open_view(rig.store.revision), b"b", b"a", 0)
    assert (pinned.is_done, pinned.count, pinned.more) == (True, 0, False)
