"""Events and watch responses as octets: each event is encoded once and shared by its watchers.

Knows no watcher.  A response is ``header || watch_id || flags || events``, all ready to join;
an *event* below is always the octets of one ``mvccpb.Event`` as field 11 of a
``WatchResponse``, tag and length included.

Source: etcd v3 api, WatchResponse and mvccpb.Event.
"""

from __future__ import annotations

from typing import Final

CREATED: Final = b"\x18\x01"
CANCELED: Final = b"\x20\x01"
FRAGMENT: Final = b"\x38\x01"

_UINT64_MASK: Final = 0xFFFFFFFFFFFFFFFF
_DELETE_TYPE: Final = b"\x08\x01"


def encode_varint(value: int) -> bytes:
    """Encode an int64 as protobuf does: a negative number takes ten octets."""
    value &= _UINT64_MASK
    if value < 0x80:
        return bytes((value,))
    octets = bytearray()
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def encode_watch_id(watch_id: int) -> bytes:
    """Encode field 2; id 0 takes no octets."""
    return b"\x10" + encode_varint(watch_id) if watch_id else b""


def encode_compacted(revision: int) -> bytes:
    """Encode field 5."""
    return b"\x28" + encode_varint(revision)


def encode_reason(reason: str) -> bytes:
    """Encode field 6; an empty reason takes no octets."""
    text = reason.encode()
    return b"\x32" + encode_varint(len(text)) + text if text else b""


def encode_event(is_delete: bool, record: bytes, previous: bytes | None) -> bytes:
    """Encode one event.

    ``record`` and ``previous`` are encoded KeyValues; of a delete ``record`` holds the key
    and ``mod_revision``.
    """
    event = b"\x12" + encode_varint(len(record)) + record
    if is_delete:
        event = _DELETE_TYPE + event
    if previous is not None:
        event += b"\x1a" + encode_varint(len(previous)) + previous
    return b"\x5a" + encode_varint(len(event)) + event


def tombstone_record(stored: bytes, main: int) -> bytes:
    """Return a stored tombstone (a KeyValue with the key alone) with its ``mod_revision``."""
    return stored + b"\x18" + encode_varint(main)


def key_of(record: bytes) -> bytes:
    """Return the key of a canonical record, which always starts with field 1."""
    length = record[1]
    if length < 0x80:
        return record[2 : 2 + length]
    length &= 0x7F
    start = 2
    shift = 7
    while True:
        octet = record[start]
        start += 1
        length |= (octet & 0x7F) << shift
        if octet < 0x80:
            return record[start : start + length]
        shift += 7


def fragments(head: bytes, events: list[bytes], size_max: int) -> list[bytes]:
    """Return the responses for ``events``: one, or several of less than ``size_max`` octets."""
    return [b"".join(parts) for parts in fragment_parts(head, events, size_max)]


def fragment_parts(head: bytes, events: list[bytes], size_max: int) -> list[list[bytes]]:
    """Return the responses for ``events`` as their parts, or several of less than ``size_max``.

    ``head`` is header and watch id.  A response is split only between events, so one event
    over ``size_max`` goes alone.  All but the last carry ``fragment``.
    """
    total = len(head) + sum(map(len, events))
    if total < size_max or len(events) < 2:
        return [[head, *events]]
    responses: list[list[bytes]] = []
    parts: list[bytes] = [head]
    size = len(head) + len(FRAGMENT)
    for event in events:
        if len(parts) > 1 and size + len(event) >= size_max:
            parts[0] = head + FRAGMENT
            responses.append(parts)
            parts = [head]
            size = len(head) + len(FRAGMENT)
        parts.append(event)
        size += len(event)
    responses.append(parts)
    return responses
