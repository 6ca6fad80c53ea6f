"""Takes the octets of one connection, gives the heads of requests and pieces of their bodies.

Heads, lines of chunks and trailers are bounded before they are kept; of bodies nothing is kept.
What is wrong with chunks is worded as Go words it (``net/http/internal``): clients see it.
"""

from __future__ import annotations

import re
from typing import Final

from etcdtw.http1.head import (
    BAD_REQUEST,
    CHUNKED,
    HEAD_TOO_LARGE,
    Head,
    HttpError,
    check_request_line,
    parse_head,
)

HEAD_SIZE_MAX: Final = 65_536
CHUNK_LINE_SIZE_MAX: Final = 4_096
TRAILER_SIZE_MAX: Final = 4_096
CHUNK_OVERHEAD_MAX: Final = 16_384
"""Octets around chunks beyond what they may fairly have, as Go counts them."""
CHUNK_DIGITS_MAX: Final = 16
REMEMBERED_SIZE_MAX: Final = 1_024
"""Octets of a head that is remembered: most clients send the same one again and again."""
FIRST_LOOK_SIZE: Final = 4
"""With fewer octets Go does not look whether they begin a request."""
EMPTY_LINES_SIZE: Final = 4
"""Octets behind a POST that may be line ends, for old clients that add some."""

# What `next_event` returns.
NEED_MORE: Final = 0
HEAD: Final = 1
"""`RequestReader.head` is new."""
BODY: Final = 2
"""`RequestReader.piece` is the next of the body."""
END: Final = 3
"""The request is whole."""
BROKEN: Final = 4
"""The body cannot be read on, `RequestReader.broken` says why; nothing follows."""

# What a reader is in the middle of.
_IN_HEAD: Final = 0
_IN_LENGTH: Final = 1
_IN_CHUNK_LINE: Final = 2
_IN_CHUNK: Final = 3
_IN_CHUNK_END: Final = 4
_IN_TRAILER: Final = 5
_AT_END: Final = 6
_IS_BROKEN: Final = 7

_HEX: Final = re.compile(rb"[0-9A-Fa-f]*")
_TRAILER_LINE: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z ]+:[\t\x20-\x7e\x80-\xff]*\r?")
_NO_HEAD: Final = Head(b"", b"", 0)


class RequestReader:
    """Reads requests one after the other."""

    __slots__ = (
        "_at",
        "_data",
        "_is_behind_post",
        "_is_line_checked",
        "_last_octets",
        "_left",
        "_overhead",
        "_scanned",
        "_state",
        "broken",
        "head",
        "piece",
    )

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0  # octets of it that were read
        self._scanned = 0  # of it: holds no end of a head
        self._state = _IN_HEAD
        self._left = 0  # octets of the body, or of the chunk
        self._overhead = 0
        self._is_behind_post = False
        self._is_line_checked = False
        self._last_octets = b""  # of the head before, if `head` is what they say
        self.head: Head = _NO_HEAD
        self.piece = b""
        self.broken = ""

    @property
    def unread(self) -> int:
        """Octets that came and were not read."""
        return len(self._data) - self._at

    @property
    def is_between(self) -> bool:
        """Whether no octet of a request has come that is not whole."""
        return self._state == _IN_HEAD and self._at == len(self._data)

    @property
    def is_in_body(self) -> bool:
        """Whether a head was read whose body has not ended."""
        return self._state != _IN_HEAD

    def feed(self, data: bytes) -> None:
        """Take octets; `next_event` reads them."""
        if self._at:
            del self._data[: self._at]
            self._at = self._scanned = 0
        self._data += data

    def take_rest(self) -> bytes:
        """Return what was not read, and forget it: another protocol goes on."""
        rest = bytes(self._data[self._at :])
        self.clear()
        return rest

    def clear(self) -> None:
        """Forget what was not read."""
        self._data.clear()
        self._at = self._scanned = 0

    def next_event(self) -> int:
        """Read on.  Raises `HttpError` for a head: nothing can follow it."""
        while True:
            state = self._state
            if state == _IN_HEAD:
                return self._read_head()
            if state in (_IN_LENGTH, _IN_CHUNK):
                return self._read_body()
            if state == _AT_END:
                self._state = _IN_HEAD
                self._scanned = self._at
                return END
            if state == _IS_BROKEN:
                return NEED_MORE
            if not self._read_framing():
                return NEED_MORE
            if self.broken:
                self._state = _IS_BROKEN
                return BROKEN

    # Heads.

    def _read_head(self) -> int:
        data = self._data
        at = self._at
        if at == len(data) or (self._is_behind_post and not self._pass_line_ends()):
            return NEED_MORE
        at = self._at
        end, next_at = self._find_end(at)
        if end < 0:
            if len(data) - at > HEAD_SIZE_MAX:
                raise HttpError(HEAD_TOO_LARGE)
            self._check_line(at)
            return NEED_MORE
        if end - at > HEAD_SIZE_MAX:
            raise HttpError(HEAD_TOO_LARGE)
        octets = bytes(data[at:end])
        if octets != self._last_octets:
            self._last_octets = b""
            self.head = parse_head(octets)
            if len(octets) <= REMEMBERED_SIZE_MAX:
                self._last_octets = octets
        head = self.head
        self._at = self._scanned = next_at
        self._is_line_checked = False
        self._is_behind_post = head.verb == b"POST"
        self._begin_body(head.length)
        return HEAD

    def _find_end(self, at: int) -> tuple[int, int]:
        """Return where a head ends, and where what follows begins; -1: not yet."""
        data = self._data
        is_empty = data[at] == 0x0A or data.startswith(b"\r\n", at)
        if is_empty and len(data) - at >= FIRST_LOOK_SIZE:
            raise HttpError(BAD_REQUEST)  # an empty line is no request
        start = max(at, self._scanned - 2)
        end = data.find(b"\n\r\n", start)
        other = data.find(b"\n\n", start, end if end >= 0 else len(data))
        if other >= 0:
            end, next_at = other, other + 2
        else:
            next_at = end + 3
        if end < 0:
            self._scanned = len(data)
            return -1, -1
        return (end - 1 if data[end - 1] == 0x0D else end), next_at

    def _check_line(self, at: int) -> None:
        """Refuse at once what begins with no request line, whatever follows."""
        if not self._is_line_checked and len(self._data) - at >= FIRST_LOOK_SIZE:
            end = self._data.find(b"\n", at)
            if end >= 0:
                check_request_line(bytes(self._data[at:end]).removesuffix(b"\r"))
                self._is_line_checked = True

    def _pass_line_ends(self) -> bool:
        """Pass over a few line ends; False: there may be more."""
        data = self._data
        at = self._at
        if data[at] in b"\r\n":
            if len(data) - at < EMPTY_LINES_SIZE:
                return False
            until = at + EMPTY_LINES_SIZE
            while at < until and data[at] in b"\r\n":
                at += 1
            self._at = self._scanned = at
        self._is_behind_post = False
        return at < len(data)

    # Bodies.

    def _begin_body(self, length: int) -> None:
        if length == CHUNKED:
            self._state = _IN_CHUNK_LINE
            self._overhead = 0
        elif length:
            self._state = _IN_LENGTH
            self._left = length
        else:
            self._state = _AT_END

    def _read_body(self) -> int:
        at = self._at
        data = self._data
        size = min(len(data) - at, self._left)
        if not size:
            return NEED_MORE
        self.piece = bytes(data[at : at + size])
        self._at = at + size
        self._left -= size
        if not self._left:
            self._state = _AT_END if self._state == _IN_LENGTH else _IN_CHUNK_END
        return BODY

    def _read_framing(self) -> bool:
        """Read what stands around chunks; False: more must come."""
        if self._state == _IN_CHUNK_LINE:
            return self._read_chunk_line()
        if self._state == _IN_TRAILER:
            return self._read_trailer()
        at = self._at
        if len(self._data) - at < 2:
            return False
        if not self._data.startswith(b"\r\n", at):
            self.broken = "malformed chunked encoding"
        self._at = at + 2
        self._state = _IN_CHUNK_LINE
        return True

    def _read_chunk_line(self) -> bool:
        data = self._data
        at = self._at
        end = data.find(b"\n", at, at + CHUNK_LINE_SIZE_MAX)
        if end < 0:
            if len(data) - at < CHUNK_LINE_SIZE_MAX:
                return False
            self.broken = "header line too long"
            return True
        line = bytes(data[at:end])
        self._at = end + 1
        carriage_return = line.find(b"\r")
        if carriage_return < 0:
            self.broken = "chunked line ends with bare LF"
        elif carriage_return != len(line) - 1:
            self.broken = "invalid CR in chunked line"
        else:
            self._begin_chunk(line[:-1])
        return True

    def _begin_chunk(self, line: bytes) -> None:
        size = line.rstrip(b" \t\r\n").partition(b";")[0]
        if not size:
            self.broken = "empty hex number for chunk length"
        elif _HEX.fullmatch(size[:CHUNK_DIGITS_MAX]) is None:
            self.broken = "invalid byte in chunk length"
        elif len(size) > CHUNK_DIGITS_MAX:
            is_digit = _HEX.fullmatch(size[: CHUNK_DIGITS_MAX + 1]) is not None
            why = "http chunk length too large" if is_digit else "invalid byte in chunk length"
            self.broken = why
        else:
            self._left = int(size, 16)
            self._overhead = max(0, self._overhead + len(line) + 2 - 16 - 2 * self._left)
            self._state = _IN_CHUNK if self._left else _IN_TRAILER
            if self._overhead > CHUNK_OVERHEAD_MAX:
                self.broken = "chunked encoding contains too much non-data"

    def _read_trailer(self) -> bool:
        """Pass over what stands behind the last chunk.

        As in Go's server it is bounded by an empty line with both of its octets, and read to one.
        """
        data = self._data
        at = self._at
        if len(data) - at < 2:
            return False
        if data.startswith(b"\r\n", at):
            self._at = at + 2
            self._state = _AT_END
            return True
        end = data.find(b"\r\n\r\n", at, at + TRAILER_SIZE_MAX)
        if end < 0:
            if len(data) - at < TRAILER_SIZE_MAX:
                return False
            self.broken = "http: suspiciously long trailer after chunked body"
            return True
        octets = bytes(data[at : end + 4])
        size = _trailer_size(octets)
        if size < 0:
            self.broken = "malformed MIME header line"
        else:
            self._at = at + size
            self._state = _AT_END
        return True


def _trailer_size(octets: bytes) -> int:
    """Return the octets of fields up to the first line that is empty; -1: they are none."""
    size = 0
    for line in octets.split(b"\n"):
        if line in (b"", b"\r"):
            return size + len(line) + 1
        is_folded = line[0] in b" \t"
        if not size if is_folded else _TRAILER_LINE.fullmatch(line) is None:
            return -1
        size += len(line) + 1
    return -1
