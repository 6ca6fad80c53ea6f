"""Messages that clients compress with gzip: inflated in steps, and answers in the same form.

Texts are those of Go's `compress/gzip` as grpc-go passes them on.  Source: RFC 1952.
"""

from __future__ import annotations

import zlib
from typing import Final

from etcdtw.grpc.call import INTERNAL, RESOURCE_EXHAUSTED, StatusError

GZIP: Final = b"gzip"
ENCODING: Final = (b"grpc-encoding", GZIP)
STEP_OCTETS: Final = 1 << 16
"""Octets read, and written, by one step: about 0.2 ms."""
MEMBER_OCTETS: Final = 1 << 12
"""What a member of a gzip file counts for in a step, however small."""
COMPRESSED_SIZE_MAX: Final = 1 << 17
"""A larger answer is put into gzip's form as it is: making it smaller would hold others up."""

_WBITS: Final = 31  # gzip's wrapper
_LEVEL: Final = 1
_HEAD_SIZE: Final = 10
_TAIL_SIZE: Final = 8
_MAGIC: Final = b"\x1f\x8b\x08"
HEAD: Final = _MAGIC + b"\0\0\0\0\0\0\xff"  # no name, no time, of no system
_BLOCK_MAX: Final = 0xFFFF
_BLOCK_OVERHEAD: Final = 5
_LAST_BLOCK: Final = b"\x01\x00\x00\xff\xff"

Part = bytes | memoryview


def _block_head(size: int) -> bytes:
    return b"\0%b%b" % (size.to_bytes(2, "little"), (size ^ _BLOCK_MAX).to_bytes(2, "little"))


_BLOCK_HEAD_MAX: Final = _block_head(_BLOCK_MAX)


def _broken(text: str, *, is_head: bool = False) -> StatusError:
    what = "decompress the message" if is_head else "read decompressed data"
    return StatusError(INTERNAL, f"grpc: failed to {what}: {text}")


class Inflater:
    """One compressed message; ``size_max`` bounds what comes out of it.

    It begins at ``start`` of the octets: they are not copied to be cut.
    """

    __slots__ = (
        "_data",
        "_inflate",
        "_is_first",
        "_parts",
        "_position",
        "_size_max",
        "_start",
        "size",
    )

    def __init__(self, data: bytes, size_max: int, start: int = 0) -> None:
        self._data = data
        self._start = start
        self._position = start
        self._size_max = size_max
        self._parts: list[bytes] = []
        self._is_first = True
        self._inflate = zlib.decompressobj(_WBITS)
        self.size = 0
        """Octets inflated so far."""
        self._check_head()

    def _check_head(self) -> None:
        """Raise `StatusError` unless a member may begin here."""
        head = self._data[self._position : self._position + _HEAD_SIZE]
        if not head:
            raise _broken("EOF", is_head=True)
        if len(head) < _HEAD_SIZE:
            raise _broken("unexpected EOF", is_head=self._is_first)
        if not head.startswith(_MAGIC):
            raise _broken("gzip: invalid header", is_head=self._is_first)

    def step(self) -> int:
        """Inflate some more; returns the octets of work.  Raises `StatusError`."""
        data = self._data[self._position : self._position + STEP_OCTETS]
        if not data:
            raise _broken("unexpected EOF")
        inflate = self._inflate
        try:
            part = inflate.decompress(data, STEP_OCTETS)
        except zlib.error as error:
            if "data check" in str(error) or "length check" in str(error):
                raise _broken("gzip: invalid checksum") from None
            offset = self._position - self._start
            raise _broken(f"flate: corrupt input before offset {offset}") from None
        taken = len(data) - len(inflate.unconsumed_tail) - len(inflate.unused_data)
        self._position += taken
        if part:
            self._parts.append(part)
            self.size += len(part)
            if self.size > self._size_max:
                text = (
                    f"grpc: received message after decompression larger than max {self._size_max}"
                )
                raise StatusError(RESOURCE_EXHAUSTED, text)
        if inflate.eof and not self.is_done:
            self._is_first = False
            self._inflate = zlib.decompressobj(_WBITS)
            self._check_head()
        return MEMBER_OCTETS + max(taken, len(part))

    @property
    def is_done(self) -> bool:
        """Whether the message is whole."""
        return self._inflate.eof and self._position == len(self._data)

    def message(self) -> bytes:
        """Return the whole message."""
        return b"".join(self._parts)


def compressed(message: bytes) -> list[Part]:
    """Return the parts of a gzip file of ``message``, made smaller unless it is large."""
    if len(message) > COMPRESSED_SIZE_MAX:
        plain = PlainGzip()
        return [HEAD, *plain.blocks(message), plain.end()]
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WBITS)
    return [deflate.compress(message), deflate.flush()]


class PlainGzip:
    """A gzip file of stored blocks, made of parts: its size is known before its content."""

    __slots__ = ("_crc", "_rest", "_size")

    def __init__(self) -> None:
        self._crc = 0
        self._size = 0
        self._rest = b""

    @staticmethod
    def size_of(size: int) -> int:
        """Return the size of a file of ``size`` octets of content."""
        blocks = -(-size // _BLOCK_MAX) + 1
        return _HEAD_SIZE + blocks * _BLOCK_OVERHEAD + size + _TAIL_SIZE

    def add(self, part: bytes) -> bytes:
        """Return the whole blocks that are there with ``part``."""
        return b"".join(self.blocks(part))

    def blocks(self, part: bytes) -> list[Part]:
        """As `add`, not joined: none of the octets are copied but those of an unfinished block."""
        self._crc = zlib.crc32(part, self._crc)
        size = len(part)
        self._size += size
        view = memoryview(part)
        parts: list[Part] = []
        start = 0
        if len(self._rest) + size >= _BLOCK_MAX:
            start = _BLOCK_MAX - len(self._rest)
            parts += [_BLOCK_HEAD_MAX, self._rest, view[:start]]
            self._rest = b""
            while size - start >= _BLOCK_MAX:
                parts += [_BLOCK_HEAD_MAX, view[start : start + _BLOCK_MAX]]
                start += _BLOCK_MAX
        self._rest += part[start:]
        return parts

    def end(self) -> bytes:
        """Return the rest of the file."""
        rest = self._rest
        head = _block_head(len(rest)) if rest else b""
        tail = self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        return b"".join((head, rest, _LAST_BLOCK, tail))
