"""Length-prefixed messages: octets in, whole messages out, and back.

Knows no stream and no status text but those of the framing itself.

    message := compressed:u8 length:u32 body        (big-endian)

Source: gRPC over HTTP/2, "Length-Prefixed-Message".
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from etcdtw.grpc.call import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED, StatusError
from etcdtw.grpc.gzip import GZIP
from etcdtw.grpc.quoting import quote_go

PREFIX: Final = Struct(">BI")
PREFIX_SIZE: Final = 5
CHUNK_OVERHEAD: Final = 64
"""Octets that a piece of a message costs beside its own."""
MESSAGE_SIZE_MAX: Final = 2 * 1024 * 1024  # etcd: max-request-bytes + 512 KiB of slack


_PREFIXES: Final = [PREFIX.pack(0, size) for size in range(1024)]


def encode_prefix(size: int) -> bytes:
    """Return the prefix of a message of ``size`` octets that is not compressed."""
    return _PREFIXES[size] if size < len(_PREFIXES) else PREFIX.pack(0, size)


def frame_message(message: bytes) -> bytes:
    """Return ``message`` with its prefix, never compressed."""
    return encode_prefix(len(message)) + message


def is_one_message(body: bytes) -> bool:
    """Whether ``body`` is one message that is not compressed, and nothing else.

    It has a prefix at least.
    """
    size = body[1] << 24 | body[2] << 16 | body[3] << 8 | body[4]
    return body[0] == 0 and size == len(body) - PREFIX_SIZE


def check_prefix(compressed: int, length: int, encoding: bytes, size_max: int) -> None:
    """Raise `StatusError` unless a message with this prefix is acceptable.

    Decided before any octet of the body is waited for.  Texts and order are grpc-go's.
    """
    if length > size_max:
        raise StatusError(
            RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({length} vs. {size_max})"
        )
    if compressed == 0:
        return
    if compressed != 1:
        raise StatusError(INTERNAL, f"grpc: received unexpected payload format {compressed}")
    if encoding != GZIP:
        raise StatusError(INTERNAL, "grpc: compressed flag set with identity or empty encoding")


def unknown_encoding(encoding: bytes) -> StatusError:
    """Return the error for a message encoding this server does not know."""
    return StatusError(
        UNIMPLEMENTED,
        f"grpc: Decompressor is not installed for grpc-encoding {quote_go(encoding)}",
    )


class MessageReader:
    """Cuts one direction of one stream into messages.

    With ``encoding`` gzip each keeps its prefix, which tells whether it is compressed.
    Holds at most one unfinished message: ``size_max`` octets and what came with its end.
    """

    __slots__ = ("_chunks", "_encoding", "_have", "_is_gzip", "_need", "_size_max")

    def __init__(self, size_max: int = MESSAGE_SIZE_MAX, encoding: bytes = b"") -> None:
        self._size_max = size_max
        self._encoding = encoding
        self._is_gzip = encoding == GZIP
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = PREFIX_SIZE  # octets until something can be decided

    @property
    def is_between_messages(self) -> bool:
        """Whether the stream may end here: no message's body has begun to be waited for.

        As grpc-go sees it, which takes the beginning of a prefix for nothing.
        """
        return self._have < PREFIX_SIZE

    @property
    def held(self) -> int:
        """Octets of memory that the unfinished message takes."""
        return self._have + CHUNK_OVERHEAD * len(self._chunks)

    def feed(self, data: bytes) -> list[bytes]:
        """Take ``data`` and return the messages it completes, in order.

        Raises `StatusError` when a prefix is refused; the reader must not be fed again.
        """
        if self._chunks:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._chunks)
        return self._cut(data)

    def _cut(self, buffer: bytes) -> list[bytes]:
        messages: list[bytes] = []
        start = 0
        size = len(buffer)
        need = PREFIX_SIZE
        skipped = 0 if self._is_gzip else PREFIX_SIZE
        while size - start >= PREFIX_SIZE:
            compressed, length = PREFIX.unpack_from(buffer, start)
            check_prefix(compressed, length, self._encoding, self._size_max)
            end = start + PREFIX_SIZE + length
            if end > size:
                need = PREFIX_SIZE + length
                break
            messages.append(buffer[start + skipped : end])
            start = end
        self._chunks = [buffer[start:]] if start < size else []
        self._have = size - start
        self._need = need
        return messages
