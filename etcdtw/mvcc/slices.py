"""Large ranges in bounded steps, so that no answer holds the reactor for long.

A pinned range reads at one revision while the store moves on; it resumes behind the last key
it returned.  Pinning holds nothing back: when a compaction passes the revision, the next
step raises `CompactedError`, and whoever asked for "now" starts over.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final, Protocol

from etcdtw.mvcc.backend import Backend
from etcdtw.mvcc.errors import CompactedError
from etcdtw.mvcc.ranges import (
    NONE,
    count_body,
    encode_kvs,
    fetch_frames,
    fetch_limit,
    has_filters,
    is_shaped,
    is_sorted,
    merge_kvs,
    open_end,
    passes,
    read_range,
    render,
    sort_kvs,
    view_of,
)
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.mvccpb import KeyValue

SLICE_SORTED_KEYS_MAX: Final = 1_000  # merging and encoding them takes about 3 ms
ANSWER_OCTETS_MAX: Final = 1 << 20  # a larger answer goes out in slices
SLICE_OCTETS_MAX: Final = 1 << 18  # about 0.5 ms of reading, joining and sending


class Revisions(Protocol):
    """Where the store stands now."""

    @property
    def revision(self) -> int: ...

    @property
    def compact_revision(self) -> int: ...

    @property
    def bounds(self) -> WorkBounds: ...


class PinnedRange:
    """The keys of ``[start, end)`` at one revision, a piece at a time.

    ``limit`` (<= 0: none) bounds what `read` returns, never ``count``.  When ``is_done``,
    ``count`` is the number of keys in the range and ``more`` tells whether the limit cut it.
    """

    def __init__(
        self,
        backend: Backend,
        revisions: Revisions,
        start: bytes,
        end: bytes | None,
        revision: int,
        limit: int,
    ) -> None:
        self._backend = backend
        self._revisions = revisions
        self._start = start
        self._end = end
        self._left = limit if limit > 0 else -1
        self._passed = 0  # keys seen, returned or only counted
        self._returned = 0
        self.revision = revision
        self.is_done = end is not None and end <= start
        self.more = False
        self.count = 0
        self._knows_count = revision == revisions.revision
        if self._knows_count and not self.is_done:
            self.count = backend.count(start, end)

    def skip(self) -> None:
        """Return no keys from now on: count what is left."""
        self._left = 0
        self._end_if_known()

    def read(self, keys_max: int) -> list[bytes]:
        """Return the frames of the next keys: at most ``keys_max``, and about 256 KiB.

        Of an old revision they are at most `WorkBounds.slice_past_keys_max`.

        An empty list does not mean the end: keys behind the limit may have to be counted.
        Raises `CompactedError` when the revision can no longer be read.
        """
        assert not self.is_done, "read behind the end"
        if self._revisions.compact_revision > self.revision:
            raise CompactedError(self.revision, self._revisions.compact_revision)
        is_counting = self._left == 0
        bounds = self._revisions.bounds
        wanted = bounds.slice_keys_max if is_counting else keys_max
        if self._left > 0:
            wanted = min(wanted, self._left)
        view = 0 if self.revision == self._revisions.revision else self.revision
        if view:
            wanted = min(wanted, bounds.slice_past_keys_max)
        frames = fetch_frames(
            self._backend, self._start, self._end, view, wanted, SLICE_OCTETS_MAX + 1
        )
        is_last = len(frames) < wanted and sum(map(len, frames)) <= SLICE_OCTETS_MAX
        if not is_counting:
            frames, was_cut = _cut(frames)
            is_last = is_last and not was_cut
            self._returned += len(frames)
            self._left -= len(frames) if self._left > 0 else 0
        self._passed += len(frames)
        if is_last:
            self._end_at(self.count if self._knows_count else self._passed)
        else:
            last = pb.RangeResponse.FromString(frames[-1]).kvs[0]
            self._start = last.key + b"\0"
            self._end_if_known()
        return [] if is_counting else frames

    def _end_if_known(self) -> None:
        if self._knows_count and (self._left == 0 or self._returned == self.count):
            self._end_at(self.count)

    def _end_at(self, count: int) -> None:
        self.is_done = True
        self.count = count
        self.more = self._returned < count


def _cut(frames: list[bytes]) -> tuple[list[bytes], bool]:
    """Return as many leading frames as make a slice (at least one), and if any were left."""
    if sum(map(len, frames)) <= SLICE_OCTETS_MAX:
        return frames, False
    size = 0
    for i in range(len(frames)):
        size += len(frames[i])
        if i and size > SLICE_OCTETS_MAX:
            return frames[:i], True
    return frames, False


class RangeSlices:
    """One RangeResponse body in pieces: joined, the results of `step` are the body.

    ``revision`` is the pinned one.  A sorted range yields nothing until all is fetched.
    """

    def __init__(self, pinned: PinnedRange, request: pb.RangeRequest, bounds: WorkBounds) -> None:
        self._pinned = pinned
        self._keys_max = bounds.slice_keys_max
        self._request = request
        self._is_sorted = is_sorted(request)
        self._is_shaped = is_shaped(request)
        self._has_filters = has_filters(request)
        self._limit = max(request.limit, 0)
        self._sortable: list[list[KeyValue]] = []  # sorted runs, each a slice
        self._merged: Iterator[KeyValue] | None = None
        self.kept = 0
        """How many keys are kept back to be sorted."""
        self._emitted = 0
        self._is_cut = False  # what passed the filters was more than the limit
        self._is_finished = False
        self.revision = pinned.revision

    def step(self) -> bytes | None:
        """Return the next octets of the body (maybe none), or None behind the end.

        Raises `CompactedError`; the slices must be dropped then.
        """
        if self._is_finished:
            return None
        pinned = self._pinned
        frames = [] if pinned.is_done else pinned.read(self._keys_max)
        if self._is_shaped and frames:
            frames = self._shape(frames)
        if not pinned.is_done:
            return b"".join(frames)
        if self._is_sorted:
            frames = self._next_sorted()
            if self.kept:
                return b"".join(frames)
        self._is_finished = True
        more = self._is_cut if self._has_filters or self._is_sorted else pinned.more
        flag = b"\x18\x01" if more and not self._request.count_only else b""
        return b"".join((*frames, flag, count_body(pinned.count)))

    def _shape(self, frames: list[bytes]) -> list[bytes]:
        """Filter a slice, and keep it back for sorting or return what goes out of it."""
        kvs = list(pb.RangeResponse.FromString(b"".join(frames)).kvs)
        if self._has_filters:
            kvs = [kv for kv in kvs if passes(kv, self._request)]
        if self._is_sorted:
            self._keep_sortable(kvs)
            return []
        if self._has_filters and 0 < self._limit < self._emitted + len(kvs):
            kvs = kvs[: self._limit - self._emitted]
            self._is_cut = True
            self._pinned.skip()
        self._emitted += len(kvs)
        return encode_kvs(kvs, self._request.keys_only)

    def _keep_sortable(self, kvs: list[KeyValue]) -> None:
        """Keep a slice as a run in order; the runs are merged as they go out."""
        self.kept += len(kvs)
        limit = self._limit
        if 0 < limit <= self._keys_max and self._request.sort_order != NONE:
            # Only the first few so far can be among the first few in the end.
            kvs = [*self._sortable.pop(), *kvs] if self._sortable else kvs
            sort_kvs(kvs, self._request)
            self._is_cut = self._is_cut or limit < len(kvs)
            del kvs[limit:]
            self.kept = len(kvs)
        else:
            sort_kvs(kvs, self._request)
        self._sortable.append(kvs)

    def _next_sorted(self) -> list[bytes]:
        """Return the frames of the next keys in order, and keep them no longer."""
        if self._merged is None:
            if 0 < self._limit < self.kept:
                self._is_cut = True
                self.kept = self._limit
            self._merged = merge_kvs(self._sortable, self._request)
        frames: list[bytes] = []
        size = 0
        for kv in islice(self._merged, min(self.kept, self._keys_max, SLICE_SORTED_KEYS_MAX)):
            self.kept -= 1
            frames += encode_kvs([kv], self._request.keys_only)
            size += len(frames[-1])
            if size >= SLICE_OCTETS_MAX:
                break
        return frames


def open_slices(
    backend: Backend, revisions: Revisions, request: pb.RangeRequest, head: bytes = b""
) -> bytes | RangeSlices:
    """Return ``head`` and the body if it is small, else what yields the body in slices.

    Raises `FutureRevisionError` or `CompactedError`.
    """
    view = view_of(request.revision, revisions.revision, revisions.compact_revision)
    start = request.key
    end = open_end(request.range_end)
    is_counted = request.count_only and not view
    if not request.range_end or is_counted or (end is not None and end <= start):
        return read_range(backend, request, revisions.revision, revisions.compact_revision, head)
    if not view and not is_shaped(request):
        return _plain(backend, revisions, request, end, head)
    limit = fetch_limit(request)
    # The current view knows its counts; an old one has to be walked for them.
    bounds = revisions.bounds
    keys_max = bounds.slice_past_keys_max if view else bounds.slice_keys_max
    wanted = limit if 0 < limit <= keys_max and not view else keys_max + 1
    # One octet more tells that the range is too large: then this was in vain, but little.
    frames = fetch_frames(backend, start, end, view, wanted, ANSWER_OCTETS_MAX + 1)
    count = len(frames)
    if count > keys_max or sum(map(len, frames)) > ANSWER_OCTETS_MAX:
        return _pin(backend, revisions, request, view or revisions.revision)
    if request.count_only:
        return head + count_body(count)
    if 0 < limit <= count:
        if view:
            frames = frames[:limit]
        else:
            count = backend.count(start, end)
    return render(frames, request, count, head)


def _plain(
    backend: Backend,
    revisions: Revisions,
    request: pb.RangeRequest,
    end: bytes | None,
    head: bytes,
) -> bytes | RangeSlices:
    """Open a range of the current view whose records go out as they are."""
    start = request.key
    limit = max(request.limit, 0)
    keys_max = revisions.bounds.slice_keys_max
    wanted = limit if 0 < limit <= keys_max else keys_max + 1
    pieces, count = backend.pieces(start, end, wanted, ANSWER_OCTETS_MAX + 1)
    if count > keys_max or sum(map(len, pieces)) > ANSWER_OCTETS_MAX:
        return _pin(backend, revisions, request, revisions.revision)
    flag = b""
    if 0 < limit == count:
        # Nothing was read to tell if there is more, as the count has to be known anyway.
        count = backend.count(start, end)
        flag = b"\x18\x01" if count > limit else b""
    return b"".join((head, *pieces, flag, count_body(count)))


def _pin(
    backend: Backend, revisions: Revisions, request: pb.RangeRequest, revision: int
) -> RangeSlices:
    needs_more = is_sorted(request) or has_filters(request)
    limit = fetch_limit(request) if needs_more else request.limit
    end = open_end(request.range_end)
    pinned = PinnedRange(backend, revisions, request.key, end, revision, limit)
    if request.count_only:
        pinned.skip()
    return RangeSlices(pinned, request, revisions.bounds)
