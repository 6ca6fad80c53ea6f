"""What `Connection.receive` returns: tuples whose first item is one of these constants.

(HEADERS, stream_id, headers, end_stream)     a message began
(DATA, stream_id, data, end_stream)           octets of its body
(TRAILERS, stream_id, headers)                a second header block; always ends the stream
(REQUEST, stream_id, headers, data)           a whole small request at once (server role)
(RESET, stream_id, error_code)                the stream is gone, by the peer or by our verdict
(DRAINED, stream_id)                          `queued` fell to 0 after having been above it
(GOAWAY, last_stream_id, error_code, debug)   the peer takes no new streams
(PING_ACK, opaque)                            the answer to `Connection.ping`
(CLOSED, error_code, text)                    the connection failed; write what is left, drop
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

HEADERS: Final = 1
DATA: Final = 2
TRAILERS: Final = 3
REQUEST: Final = 4
RESET: Final = 5
DRAINED: Final = 6
GOAWAY: Final = 7
PING_ACK: Final = 8
CLOSED: Final = 9

EVENT_NAMES: Final = (
    "",
    "HEADERS",
    "DATA",
    "TRAILERS",
    "REQUEST",
    "RESET",
    "DRAINED",
    "GOAWAY",
    "PING_ACK",
    "CLOSED",
)

# The first item decides the rest, which the type system cannot follow for plain ints.
Event: TypeAlias = tuple[Any, ...]

Field: TypeAlias = tuple[bytes, bytes]

UNCHECKED: Final = -3
"""`HeaderList.request_length`: nobody looked yet."""


class HeaderList:
    """One decoded header block.

    ``fields`` holds (name, value) in wire order.  ``memo`` belongs to the layer above, which may
    keep there what it derived: the same object comes again for a repeated block, as long as the
    peer's compression table stands unchanged.  ``clean`` is False when a name or value holds
    octets that HTTP forbids.  ``request_length`` caches the verdict of `fields.check_request`.
    """

    __slots__ = ("clean", "fields", "memo", "request_length")

    def __init__(self, fields: tuple[Field, ...], clean: bool = True) -> None:
        self.fields = fields
        self.memo: object | None = None
        self.clean = clean
        self.request_length = UNCHECKED

    def __repr__(self) -> str:
        return f"HeaderList({self.fields!r})"
