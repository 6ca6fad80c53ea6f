"""Keys, ranges of keys, and the requests that name them."""

from __future__ import annotations

from typing import Final, Literal, TypedDict

from etcdtw.wire import etcdserverpb as pb

Key = bytes | str
"""Text is taken as UTF-8."""

ALL_FROM: Final = b"\0"
"""As a range end: all keys from the key on."""
FIRST_KEY: Final = b"\0"

SortTarget = Literal["key", "version", "create", "mod", "value"]
_TARGETS: Final[dict[SortTarget, int]] = {
    "key": 0,
    "version": 1,
    "create": 2,
    "mod": 3,
    "value": 4,
}
_ASCENDING, _DESCENDING = 1, 2


class PutOptions(TypedDict, total=False):
    """See `put_request`."""

    lease: int
    prev_kv: bool
    ignore_value: bool
    ignore_lease: bool


class DeleteOptions(TypedDict, total=False):
    """See `delete_request`."""

    range_end: Key | None
    prefix: bool
    from_key: bool
    prev_kv: bool


class RangeOptions(TypedDict, total=False):
    """See `range_request`."""

    range_end: Key | None
    prefix: bool
    from_key: bool
    limit: int
    revision: int
    sort: SortTarget | None
    descending: bool
    serializable: bool
    keys_only: bool
    count_only: bool
    min_mod_revision: int
    max_mod_revision: int
    min_create_revision: int
    max_create_revision: int


class WatchOptions(TypedDict, total=False):
    """See `watch.watch_request`."""

    range_end: Key | None
    prefix: bool
    from_key: bool
    start_revision: int
    prev_kv: bool
    no_puts: bool
    no_deletes: bool
    progress_notify: bool
    fragment: bool


def octets(text: Key) -> bytes:
    """Return ``text`` as octets."""
    return text.encode() if isinstance(text, str) else text


def prefix_end(prefix: bytes) -> bytes:
    """Return the end of the range of all keys that begin with ``prefix``."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else ALL_FROM


def key_range(key: Key, range_end: Key | None, prefix: bool, from_key: bool) -> tuple[bytes, bytes]:
    """Return key and range end of a request.

    One key, unless ``range_end`` is given, or ``prefix`` (all keys that begin with ``key``; all
    keys when it is empty), or ``from_key`` (all keys from ``key`` on).
    """
    assert (range_end is not None) + prefix + from_key <= 1, "one kind of range"
    first = octets(key)
    if prefix:
        return first or FIRST_KEY, prefix_end(first)
    if from_key:
        return first or FIRST_KEY, ALL_FROM
    return first, b"" if range_end is None else octets(range_end)


def range_request(
    key: Key,
    *,
    range_end: Key | None = None,
    prefix: bool = False,
    from_key: bool = False,
    limit: int = 0,
    revision: int = 0,
    sort: SortTarget | None = None,
    descending: bool = False,
    serializable: bool = False,
    keys_only: bool = False,
    count_only: bool = False,
    min_mod_revision: int = 0,
    max_mod_revision: int = 0,
    min_create_revision: int = 0,
    max_create_revision: int = 0,
) -> pb.RangeRequest:
    """Return a request for what stands under ``key``, or in a range (see `key_range`).

    ``serializable``: the answering member's own state will do, which may be old.
    """
    first, end = key_range(key, range_end, prefix, from_key)
    request = pb.RangeRequest(
        key=first,
        range_end=end,
        limit=limit,
        revision=revision,
        serializable=serializable,
        keys_only=keys_only,
        count_only=count_only,
        min_mod_revision=min_mod_revision,
        max_mod_revision=max_mod_revision,
        min_create_revision=min_create_revision,
        max_create_revision=max_create_revision,
    )
    if sort is not None or descending:
        request.sort_target = _TARGETS[sort or "key"]
        request.sort_order = _DESCENDING if descending else _ASCENDING
    return request


def put_request(
    key: Key,
    value: Key,
    *,
    lease: int = 0,
    prev_kv: bool = False,
    ignore_value: bool = False,
    ignore_lease: bool = False,
) -> pb.PutRequest:
    """Return a request that puts ``value`` under ``key``."""
    return pb.PutRequest(
        key=octets(key),
        value=octets(value),
        lease=lease,
        prev_kv=prev_kv,
        ignore_value=ignore_value,
        ignore_lease=ignore_lease,
    )


def delete_request(
    key: Key,
    *,
    range_end: Key | None = None,
    prefix: bool = False,
    from_key: bool = False,
    prev_kv: bool = False,
) -> pb.DeleteRangeRequest:
    """Return a request that deletes ``key``, or a range (see `key_range`)."""
    first, end = key_range(key, range_end, prefix, from_key)
    return pb.DeleteRangeRequest(key=first, range_end=end, prev_kv=prev_kv)
