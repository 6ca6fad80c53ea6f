"""Large ranges in bounded steps, so that no answer holds the reactor for long.

A pinned range reads at one revision while the store moves on; it resumes behind the last key
it returned.  Pinning holds nothing back: when a compaction passes the revision, the next
step raises `CompactedError`, and whoever asked for "now" starts over.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Any, Final, Protocol

from etcdtw.mvcc.backend import Backend, Row
from etcdtw.mvcc.ranges import (
    DESCEND,
    NONE,
    count_body,
    encode_kvs,
    fetch_limit,
    has_filters,
    is_shaped,
    is_sorted,
    open_end,
    passes,
    plain_body,
    read_range,
    sort_target,
    view_of,
)
from etcdtw.mvcc.views import Revisions, View
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.mvccpb import KeyValue

SLICE_SORTED_KEYS_MAX: Final = 1_000  # merging them takes about 1 ms
ANSWER_OCTETS_MAX: Final = 1 << 20  # a larger answer goes out in slices
LOOKED_MIN: Final = 16  # rows looked at in one go: a few more than asked for cost nothing
SLICE_OCTETS_MAX: Final = 1 << 18  # about 0.5 ms of reading, joining and sending
KEPT_OVERHEAD: Final = 200  # octets of Python objects that a key kept to be sorted costs

Sortable = tuple[Any, int, bytes]
"""What is sorted by, the place in the order of keys, and the frame."""


class Views(Revisions, Protocol):
    """Makes views: the store."""

    def open_view(self, revision: int) -> View: ...


class PinnedRange:
    """The keys of ``[start, end)`` in one view, a piece at a time.

    ``limit`` (<= 0: none) bounds what `read` returns, never ``count``.  When ``is_done``,
    ``count`` is the number of keys in the range and ``more`` tells whether the limit cut it.
    """

    def __init__(
        self, view: View, start: bytes, end: bytes | None, limit: int, owns_view: bool = True
    ) -> None:
        self._view = view
        self._owns_view = owns_view
        self._position: bytes | None = start
        self._end = end
        self._left = limit if limit > 0 else -1
        self._returned = 0
        self._counted = 0  # keys that were only counted
        self.revision = view.revision
        self.is_done = end is not None and end <= start
        self.more = False
        self.count = 0
        self._knows_count = view.is_current
        if self._knows_count and not self.is_done:
            self.count = view.count(start, end) or 0
            self._end_if_known()

    def skip(self) -> None:
        """Return no keys from now on: count what is left."""
        self._left = 0
        self._end_if_known()

    def close(self) -> None:
        """It is read no more."""
        if self._owns_view:
            self._view.close()

    def read(self, keys_max: int) -> list[bytes]:
        """Return the frames of the next keys: at most ``keys_max``, and about 256 KiB.

        An empty list does not mean the end: rows may be dead, and keys behind the limit may have
        to be counted.  Raises `CompactedError` when the revision can no longer be read.
        """
        if self._left == 0:
            self._count_on(self._view.bounds.slice_keys_max)
            return []
        wanted = keys_max if self._left < 0 else min(keys_max, self._left)
        rows = self._read_rows(wanted, keys_max)
        kept = _fitting(rows, wanted)
        if kept < len(rows):
            del rows[kept:]
            self._position = rows[-1][0] + b"\0"
        self._returned += kept
        self._left -= kept if self._left > 0 else 0
        if self._position is None:
            self._end_at(self.count if self._knows_count else self._returned)
        else:
            self._end_if_known()
            if self._left == 0 and not self.is_done and kept < keys_max:
                self._count_on(keys_max - kept)
        return [frame for _, frame in rows]

    def _read_rows(self, wanted: int, looked_max: int) -> list[Row]:
        """Read up to ``wanted`` rows or a few more; where most are dead, look at ``looked_max``."""
        rows: list[Row] = []
        size = looked = 0
        while True:
            ask = max(min(wanted - len(rows), looked_max - looked), LOOKED_MIN)
            octets_max = SLICE_OCTETS_MAX + 1 - size
            assert self._position is not None, "read behind the end"
            some, self._position = self._view.rows(self._position, self._end, ask, octets_max)
            rows += some
            looked += ask
            if self._position is None or len(rows) >= wanted or looked >= looked_max:
                return rows
            size += sum([len(row[1]) for row in some])
            if size > SLICE_OCTETS_MAX:
                return rows

    def _count_on(self, rows_max: int) -> None:
        """Count some of what is left."""
        position = self._position
        assert position is not None, "counted behind the end"
        view = self._view
        left = view.count(position, self._end)
        if left is not None:
            self._counted += left
            self._position = None
        else:
            some, self._position = view.count_some(position, self._end, rows_max)
            self._counted += some
        if self._position is None:
            self._end_at(self._returned + self._counted)

    def _end_if_known(self) -> None:
        if self._knows_count and (self._left == 0 or self._returned == self.count):
            self._end_at(self.count)

    def _end_at(self, count: int) -> None:
        self.is_done = True
        self.count = count
        self.more = self._returned < count


def _fitting(rows: list[Row], rows_max: int) -> int:
    """Return how many leading rows make a slice: at least one, if there is any."""
    size = 0
    for i in range(min(len(rows), rows_max)):
        size += len(rows[i][1])
        if i and size > SLICE_OCTETS_MAX:
            return i
    return min(len(rows), rows_max)


class RangeSlices:
    """One RangeResponse body in pieces: joined, the results of `step` are the body.

    ``revision`` is the pinned one.  A sorted range yields nothing until all is fetched.
    """

    def __init__(self, pinned: PinnedRange, request: pb.RangeRequest, bounds: WorkBounds) -> None:
        self._pinned = pinned
        self._request = request
        self._is_sorted = is_sorted(request)
        self._is_shaped = is_shaped(request)
        self._has_filters = has_filters(request)
        # To parse a record costs about as much as to look one up in history.
        self._keys_max = bounds.slice_past_keys_max if self._is_shaped else bounds.slice_keys_max
        self._out_max = min(bounds.slice_keys_max, SLICE_SORTED_KEYS_MAX)
        self._limit = max(request.limit, 0)
        self._target = sort_target(request)
        self._is_descending = request.sort_order == DESCEND
        self._runs: list[list[Sortable]] = []  # each in order
        self._taken = 0
        self._merged: Iterator[Sortable] | None = None
        self.kept = 0
        """How many keys are kept back to be sorted."""
        self.held = 0
        """About how many octets that takes."""
        self._first = b""
        self._emitted = 0
        self._is_cut = False  # what passed the filters was more than the limit
        self.is_finished = False
        self.revision = pinned.revision

    def close(self) -> None:
        """Let go of everything: no step follows."""
        self.is_finished = True
        self._pinned.close()

    def put_back(self, part: bytes) -> None:
        """Let the next step return this, which the first one did."""
        self._first = part

    def step(self) -> bytes | None:
        """Return the next octets of the body (maybe none), or None behind the end.

        Raises `CompactedError`; the slices must be dropped then.
        """
        if self.is_finished:
            return None
        if self._first:
            part, self._first = self._first, b""
            return part
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
        self.close()
        more = self._is_cut if self._has_filters or self._is_sorted else pinned.more
        flag = b"\x18\x01" if more and not self._request.count_only else b""
        return b"".join((*frames, flag, count_body(pinned.count)))

    def _shape(self, frames: list[bytes]) -> list[bytes]:
        """Filter a slice, and keep it back for sorting or return what goes out of it."""
        request = self._request
        kvs = list(pb.RangeResponse.FromString(b"".join(frames)).kvs)
        if self._has_filters:
            chosen = [i for i in range(len(kvs)) if passes(kvs[i], request)]
            kvs = [kvs[i] for i in chosen]
            frames = [frames[i] for i in chosen]
        if self._is_sorted:
            self._keep_sortable(kvs, frames)
            return []
        if self._has_filters and 0 < self._limit < self._emitted + len(kvs):
            del kvs[self._limit - self._emitted :]
            del frames[self._limit - self._emitted :]
            self._is_cut = True
            self._pinned.skip()
        self._emitted += len(kvs)
        return encode_kvs(kvs, True) if request.keys_only else frames

    def _keep_sortable(self, kvs: list[KeyValue], frames: list[bytes]) -> None:
        """Keep a slice as a run in order; the runs are merged as they go out."""
        # Equal ones stay in the order of keys, downwards too.
        first = self._taken
        self._taken += len(kvs)
        places = range(first, self._taken)
        values = list(map(attrgetter(self._target), kvs))
        if self._request.keys_only:
            frames = encode_kvs(kvs, True)
        run: list[Sortable] = list(
            zip(
                values, [-i for i in places] if self._is_descending else places, frames, strict=True
            )
        )
        limit = self._limit
        if 0 < limit <= self._keys_max and self._request.sort_order != NONE:
            # Only the first few so far can be among the first few in the end.
            if self._runs:
                run += self._runs.pop()
            self.kept = 0
            self.held = 0
            run.sort(reverse=self._is_descending)
            self._is_cut = self._is_cut or limit < len(run)
            del run[limit:]
        else:
            run.sort(reverse=self._is_descending)
        self.kept += len(run)
        self.held += sum([len(row[2]) + KEPT_OVERHEAD for row in run])
        self._runs.append(run)

    def _next_sorted(self) -> list[bytes]:
        """Return the frames of the next keys in order, and keep them no longer."""
        if self._merged is None:
            if 0 < self._limit < self.kept:
                self._is_cut = True
                self.kept = self._limit
            self._merged = merge(*self._runs, reverse=self._is_descending)
            self._runs = []
        frames: list[bytes] = []
        size = 0
        for row in islice(self._merged, min(self.kept, self._out_max)):
            frames.append(row[2])
            size += len(row[2])
            if size >= SLICE_OCTETS_MAX:
                break
        self.kept -= len(frames)
        self.held -= size + len(frames) * KEPT_OVERHEAD
        return frames


def open_slices(
    backend: Backend, views: Views, request: pb.RangeRequest, head: bytes = b""
) -> bytes | RangeSlices:
    """Return ``head`` and the body if it is small, else what yields the body in slices.

    Raises `FutureRevisionError` or `CompactedError`.
    """
    view = view_of(request.revision, views.revision, views.compact_revision)
    start = request.key
    end = open_end(request.range_end)
    is_counted = request.count_only and not view
    if not request.range_end or is_counted or (end is not None and end <= start):
        return read_range(backend, request, views.revision, views.compact_revision, head)
    if not view and not is_shaped(request):
        return _plain(backend, views, request, end, head)
    slices = slice_range(views.open_view(view or views.revision), request)
    first = slices.step() or b""
    if slices.is_finished:
        return head + first
    slices.put_back(first)
    return slices


def _plain(
    backend: Backend, views: Views, request: pb.RangeRequest, end: bytes | None, head: bytes
) -> bytes | RangeSlices:
    """Open a range of the current view whose records go out as they are."""
    start = request.key
    limit = max(request.limit, 0)
    keys_max = views.bounds.slice_keys_max
    wanted = limit if 0 < limit <= keys_max else keys_max + 1
    # One octet more tells that the range is too large: then this was in vain, but little.
    pieces, count = backend.pieces(start, end, wanted, ANSWER_OCTETS_MAX + 1)
    if count > keys_max or sum(map(len, pieces)) > ANSWER_OCTETS_MAX:
        return slice_range(views.open_view(views.revision), request)
    return plain_body(backend, start, end, limit, pieces, count, head)


def slice_range(view: View, request: pb.RangeRequest, owns_view: bool = True) -> RangeSlices:
    """Return what yields the body of a range, or of a single key, in slices.

    ``owns_view``: the view is closed with it.
    """
    needs_more = is_sorted(request) or has_filters(request)
    limit = fetch_limit(request) if needs_more else request.limit
    end = open_end(request.range_end) if request.range_end else request.key + b"\0"
    pinned = PinnedRange(view, request.key, end, limit, owns_view)
    if request.count_only:
        pinned.skip()
    return RangeSlices(pinned, request, view.bounds)
