"""Ranges: what a RangeRequest selects at one revision, as the body of its response.

A body is a RangeResponse without its header: ``kvs`` (2), ``more`` (3), ``count`` (4).
Records are passed on as they are stored; only filters, sorting and ``keys_only`` look inside.

Source: etcd v3 api, RangeRequest.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Final

from etcdtw.mvcc.backend import Backend
from etcdtw.mvcc.errors import CompactedError, FutureRevisionError
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import encode_varint
from etcdtw.wire.mvccpb import KeyValue

KEY: Final = pb.RangeRequest.KEY
NONE: Final = pb.RangeRequest.NONE
DESCEND: Final = pb.RangeRequest.DESCEND

_ATTRIBUTES: Final = ("key", "version", "create_revision", "mod_revision", "value")
"""The sort targets by their number."""

COUNT_OF_ONE: Final = b"\x20\x01"
"""The end of the body for one key without options: field 4, count."""


def open_end(range_end: bytes) -> bytes | None:
    """Return the exclusive bound that a ``range_end`` means; None: to the end of all keys."""
    return None if range_end == b"\0" else range_end


def view_of(requested: int, current: int, compact_revision: int) -> int:
    """Return the old main revision to read at, or 0 for the current view.

    Raises `FutureRevisionError` or `CompactedError`.
    """
    if requested <= 0 or requested == current:
        return 0
    if requested > current:
        raise FutureRevisionError(requested, current)
    if requested < compact_revision:
        raise CompactedError(requested, compact_revision)
    return requested


def read_range(
    backend: Backend,
    request: pb.RangeRequest,
    current: int,
    compact_revision: int,
    head: bytes = b"",
) -> bytes:
    """Return ``head`` and the body for ``request``, over a view at revision ``current``.

    Runs to the end at once, however large the range; see `slices` for the other way.
    Raises `FutureRevisionError` or `CompactedError`.
    """
    view = view_of(request.revision, current, compact_revision)
    if not request.range_end:
        return head + _single_key(backend, request, view)
    start = request.key
    end = open_end(request.range_end)
    if end is not None and end <= start:
        return head
    if request.count_only:
        return head + count_body(count_keys(backend, start, end, view))
    limit = fetch_limit(request)
    frames = fetch_frames(backend, start, end, view, limit)
    count = len(frames)
    if 0 < limit <= count:
        count = count_keys(backend, start, end, view)
    return render(frames, request, count, head)


def render(frames: list[bytes], request: pb.RangeRequest, count: int, head: bytes = b"") -> bytes:
    """Return ``head`` and the body for fetched ``frames``, of ``count`` keys in the range."""
    if is_shaped(request):
        frames = shape(frames, request)
    return finish_body(frames, request.limit, count, head)


def fetch_limit(request: pb.RangeRequest) -> int:
    """Return how many keys need to be fetched in key order; 0: all of them.

    One more than the limit tells whether there are more.  An unsorted request with another
    target than the key is limited *before* it is sorted; that is etcd's rule.
    """
    limit = request.limit
    if limit <= 0 or has_filters(request):
        return 0
    if request.sort_order == NONE:
        return limit + 1
    return 0 if is_sorted(request) else limit + 1


def is_sorted(request: pb.RangeRequest) -> bool:
    """Tell whether the response's order is another than the key's.

    A number that is no sort target sorts nothing: members refuse it, but the log of an older
    cluster may hold one.
    """
    target = request.sort_target
    if target == KEY:
        return request.sort_order == DESCEND
    return 0 < target < len(_ATTRIBUTES)


def sort_target(request: pb.RangeRequest) -> str:
    """Return the attribute that is sorted by."""
    return _ATTRIBUTES[request.sort_target] if is_sorted(request) else "key"


def has_filters(request: pb.RangeRequest) -> bool:
    """Tell whether keys are chosen by their revisions."""
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def is_shaped(request: pb.RangeRequest) -> bool:
    """Tell whether the records have to be parsed: sorted, filtered or without values."""
    return request.keys_only or is_sorted(request) or has_filters(request)


def shape(frames: list[bytes], request: pb.RangeRequest) -> list[bytes]:
    """Filter and sort ``frames`` as ``request`` asks.

    The limit is left to `finish_body`: there is one frame too many if it cuts.
    """
    kvs = list(pb.RangeResponse.FromString(b"".join(frames)).kvs)
    kvs = [kv for kv in kvs if passes(kv, request)] if has_filters(request) else kvs
    if is_sorted(request):
        sort_kvs(kvs, request)
    if 0 < request.limit < len(kvs):
        del kvs[request.limit + 1 :]
    return encode_kvs(kvs, request.keys_only)


def encode_kvs(kvs: list[KeyValue], keys_only: bool) -> list[bytes]:
    """Return the frames of parsed records; ``keys_only`` drops the values, keeps the leases."""
    frames: list[bytes] = []
    for kv in kvs:
        if keys_only:
            kv.ClearField("value")
        record = kv.SerializeToString()
        frames.append(b"\x12%b%b" % (encode_varint(len(record)), record))
    return frames


def passes(kv: KeyValue, request: pb.RangeRequest) -> bool:
    """Apply the revision filters: bounds are inclusive, 0 is "no bound"."""
    mod = kv.mod_revision
    created = kv.create_revision
    return not (
        (request.min_mod_revision and mod < request.min_mod_revision)
        or (request.max_mod_revision and mod > request.max_mod_revision)
        or (request.min_create_revision and created < request.min_create_revision)
        or (request.max_create_revision and created > request.max_create_revision)
    )


def sort_kvs(kvs: list[KeyValue], request: pb.RangeRequest) -> None:
    """Sort in place; equal ones stay in key order."""
    kvs.sort(
        key=attrgetter(_ATTRIBUTES[request.sort_target]), reverse=request.sort_order == DESCEND
    )


def finish_body(frames: list[bytes], limit: int, count: int, head: bytes = b"") -> bytes:
    """Return ``head`` and the body made of ``frames`` cut to ``limit`` (<= 0: not) and ``count``.

    One join: these octets may be many, and each copy of them costs.
    """
    tail = count_body(count)
    if 0 < limit < len(frames):
        frames = frames[:limit]
        tail = b"\x18\x01" + tail
    return b"".join((head, *frames, tail))


def plain_body(
    backend: Backend,
    start: bytes,
    end: bytes | None,
    limit: int,
    pieces: list[bytes],
    count: int,
    head: bytes = b"",
) -> bytes:
    """Return ``head`` and the body of a range of the present, read up to its limit (<= 0: none).

    ``pieces`` are the frames of ``count`` keys.  If they are as many as the limit nothing was read
    to tell whether there are more: the count has to be known anyway.
    """
    flag = b""
    if 0 < limit == count:
        count = backend.count(start, end)
        flag = b"\x18\x01" if count > limit else b""
    return b"".join((head, *pieces, flag, count_body(count)))


def count_body(count: int) -> bytes:
    """Return the field ``count``; nothing for 0."""
    return b"\x20" + encode_varint(count) if count else b""


def fetch_frames(
    backend: Backend, start: bytes, end: bytes | None, view: int, limit: int
) -> list[bytes]:
    """Return frames in key order at an old revision, or of the current view (``view`` 0)."""
    if view:
        return backend.frames_at(start, end, view, limit)
    return backend.frames(start, end, limit)


def count_keys(backend: Backend, start: bytes, end: bytes | None, view: int) -> int:
    """Count live keys at an old revision, or in the current view (``view`` 0)."""
    return backend.count_at(start, end, view) if view else backend.count(start, end)


def _single_key(backend: Backend, request: pb.RangeRequest, view: int) -> bytes:
    record = backend.get_at(request.key, view) if view else backend.get(request.key)
    if record is None:
        return b""
    if request.count_only:
        return count_body(1)
    frames = [b"\x12%b%b" % (encode_varint(len(record)), record)]
    if is_shaped(request):
        frames = shape(frames, request)
    return finish_body(frames, 0, 1)
