"""The header of an entry: which request it is, and who asked for it.

    header := 0xA2 0x06 varint(size)  0x08 varint(request id)
              [0x12 varint(size) user]  [0x18 varint(auth revision)]

Source: etcd's ``InternalRaftRequest``, whose field 100 is a ``RequestHeader``.  Ours comes first
in an entry, real etcd's after the request.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from etcdtw.wire.encode import delimited, encode_varint, read_varint

FIELD_HEADER: Final = 100
HEADER_TAG: Final = b"\xa2\x06"
ID_TOP: Final = 1 << 63
"""Set in every request id of ours: its varint then always takes ten octets."""
NOBODYS: Final = HEADER_TAG + b"\x0b"
"""How an entry begins that no user asked for: a header that holds an id of ours and nothing else.

The id of a request follows, so that the first `PREFIX_SIZE` octets of an entry tell whose it is."""
PREFIX_SIZE: Final = len(NOBODYS) + 11
"""Of an entry of ours: enough to tell it from all others of this member.

Long names of users take more room for the header's size; what the prefix then lacks of the id are
its highest bits, which are the same in all of a member's."""

TAG_ID: Final = b"\x08"
_TAG_USER: Final = b"\x12"
_TAG_AUTH_REVISION: Final = b"\x18"
_FIELD_USER: Final = 2
_FIELD_AUTH_REVISION: Final = 3
_VARINT: Final = 0
_DELIMITED: Final = 2


class Asker(NamedTuple):
    """Who asked for an entry.

    user           empty: nobody was authenticated
    auth_revision  of users and roles, when the user was; 0 without one
    """

    user: str = ""
    auth_revision: int = 0


NOBODY: Final = Asker()


class EntryHeader(NamedTuple):
    """A whole header."""

    request_id: int
    asker: Asker = NOBODY


def encode_header(header: EntryHeader) -> bytes:
    """Return the field, tag and size included."""
    number = TAG_ID + encode_varint(header.request_id)
    return delimited(HEADER_TAG, number + encode_asker(header.asker))


def around_id(asker: Asker) -> tuple[bytes, bytes]:
    """Return what stands before and behind an id of ours, with its tag, where ``asker`` asked.

    The id with its tag is what follows `NOBODYS` in a header that holds nothing else.
    """
    octets = encode_asker(asker)
    return HEADER_TAG + encode_varint(PREFIX_SIZE - len(NOBODYS) + len(octets)), octets


def encode_asker(asker: Asker) -> bytes:
    """Return the fields of a header that tell who asked."""
    octets = b""
    if asker.user:
        octets = delimited(_TAG_USER, asker.user.encode(errors="surrogateescape"))
    if asker.auth_revision:
        octets += _TAG_AUTH_REVISION + encode_varint(asker.auth_revision)
    return octets


def decode_header(body: bytes) -> EntryHeader:
    """Return what the field holds, without tag and size.

    Unknown fields are passed over.  Raises ValueError for what is no protobuf.
    """
    request_id = auth_revision = 0
    user = b""
    position = 0
    while position < len(body):
        tag, position = read_varint(body, position)
        kind = tag & 7
        if kind == _VARINT:
            number, position = read_varint(body, position)
            if tag >> 3 == 1:
                request_id = number
            elif tag >> 3 == _FIELD_AUTH_REVISION:
                auth_revision = number
        elif kind == _DELIMITED:
            size, position = read_varint(body, position)
            if position + size > len(body):
                raise ValueError("a header is cut short")
            if tag >> 3 == _FIELD_USER:
                user = body[position : position + size]
            position += size
        else:
            raise ValueError(f"a header's field {tag >> 3} has wire type {kind}")
    if not user and not auth_revision:
        return EntryHeader(request_id)
    return EntryHeader(request_id, Asker(user.decode(errors="surrogateescape"), auth_revision))
