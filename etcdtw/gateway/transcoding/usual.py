"""JSON of the usual shape to octets, by Python's own scanner in C.

Whatever is in doubt is left to `exact`, which reads letter by letter as Go does, and words what
is wrong.
"""

from __future__ import annotations

from json import JSONDecoder
from typing import Any, Final, NoReturn

from etcdtw.gateway.transcoding.scalars import decode_base64, number_octets, within_range
from etcdtw.gateway.transcoding.tables import (
    BOOL,
    BYTES,
    ENUM,
    MESSAGE,
    STRING,
    Field,
    Table,
)
from etcdtw.wire.encode import encode_varint

USUAL_SIZE_MAX: Final = 16 * 1024
"""Octets of a body that are read at once: a few milliseconds at the most."""


OBJECTS_MAX: Final = 200
"""So many that none is deeper than `exact` allows."""


class _UnusualError(Exception):
    """Leave it to `exact`."""


def _unusual(_: str) -> NoReturn:
    raise _UnusualError


# Objects become tuples of pairs, so that a name that comes twice is seen.
_DECODER: Final = JSONDecoder(
    object_pairs_hook=tuple, parse_float=_unusual, parse_constant=_unusual
)


def read_usual(table: Table, body: bytes) -> bytes | None:
    """Return the message that ``body`` begins with; None: read it otherwise.

    An empty body is an empty message.
    """
    if not body:
        return b""
    if len(body) > USUAL_SIZE_MAX or b"\\u" in body or body.count(b"{") > OBJECTS_MAX:
        return None
    try:
        found, _ = _DECODER.raw_decode(body.decode(), 0)
        return _message(table, found)
    except (_UnusualError, ValueError, RecursionError):
        return None


def _message(table: Table, pairs: Any) -> bytes:
    if type(pairs) is not tuple:
        raise _UnusualError
    found: list[tuple[int, bytes]] = []
    seen: set[int | str] = set()
    by_name = table.by_name
    last = 0
    is_sorted = True
    for name, value in pairs:
        field = by_name.get(name)
        if field is None:
            continue
        number = field.number
        if number in seen:
            raise _UnusualError
        seen.add(number)
        if value is None:
            continue
        oneof = field.oneof
        if oneof is not None:
            if oneof in seen:
                raise _UnusualError
            seen.add(oneof)
        octets = _list(field, value) if field.is_list else _field(field, value)
        if octets:
            is_sorted = is_sorted and number > last
            last = number
            found.append((number, octets))
    if not is_sorted:
        found.sort()
    return b"".join([octets for _, octets in found])


def _list(field: Field, values: Any) -> bytes:
    """Return a whole repeated field."""
    if type(values) is not list:
        raise _UnusualError
    if not field.is_packed:
        tag = field.tag
        parts = []
        for value in values:
            octets = _value(field, value)
            parts.append(b"%b%b%b" % (tag, encode_varint(len(octets)), octets))
        return b"".join(parts)
    packed = b"".join([_value(field, value) for value in values])
    return b"%b%b%b" % (field.tag, encode_varint(len(packed)), packed) if packed else b""


def _field(field: Field, value: Any) -> bytes:
    """Return a field that comes once; empty: it goes without saying."""
    octets = _value(field, value)
    if field.kind < BYTES:
        if not octets or (octets == b"\0" and not field.is_shown_empty):
            return b""
        return field.tag + octets
    if not octets and not field.is_shown_empty:
        return b""
    return b"%b%b%b" % (field.tag, encode_varint(len(octets)), octets)


def _value(field: Field, value: Any) -> bytes:
    """Return what follows the tag, and the length; empty for an enum's unknown name."""
    kind = field.kind
    if kind == MESSAGE:
        return _message(field.table, value)
    is_text = type(value) is str
    if kind == BYTES:
        octets = decode_base64(value) if is_text else None
    elif kind == STRING:
        octets = value.encode() if is_text else None
    elif kind == BOOL:
        octets = (b"\1" if value else b"\0") if type(value) is bool else None
    elif kind == ENUM and is_text:
        known = field.enum_numbers.get(value)
        octets = b"" if known is None else encode_varint(known)
    elif is_text:
        octets = number_octets(field, value, is_quoted=True)
    elif type(value) is int and within_range(field, value):
        octets = encode_varint(value)
    else:
        octets = None
    if octets is None:
        raise _UnusualError
    return octets
