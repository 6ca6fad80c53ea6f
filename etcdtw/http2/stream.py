"""The states of a stream as a table, and what a connection keeps for one open stream.

The table mirrors figure 2 of RFC 9113 section 5.1 without push, which we refuse.  Columns are
inputs; ``END`` is the END_STREAM flag and is fed after the frame that carried it.  A negative
cell is the negated error code of an input that is illegal there: PROTOCOL_ERROR costs the
connection, STREAM_CLOSED the stream, INTERNAL_ERROR is a mistake of the layer above.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from etcdtw.http2.errors import INTERNAL_ERROR, PROTOCOL_ERROR, STREAM_CLOSED

IDLE: Final = 0
OPEN: Final = 1
HALF_CLOSED_LOCAL: Final = 2
HALF_CLOSED_REMOTE: Final = 3
CLOSED: Final = 4

STATE_NAMES: Final = ("idle", "open", "half closed (local)", "half closed (remote)", "closed")

RECV_HEADERS: Final = 0
RECV_DATA: Final = 1
RECV_END: Final = 2
RECV_RESET: Final = 3
RECV_WINDOW_UPDATE: Final = 4
SEND_HEADERS: Final = 5
SEND_DATA: Final = 6
SEND_END: Final = 7
SEND_RESET: Final = 8

INPUT_NAMES: Final = (
    "recv HEADERS",
    "recv DATA",
    "recv END",
    "recv RST",
    "recv WINDOW",
    "send HEADERS",
    "send DATA",
    "send END",
    "send RST",
)

_PE: Final = -PROTOCOL_ERROR
_SC: Final = -STREAM_CLOSED
_IE: Final = -INTERNAL_ERROR
_O: Final = OPEN
_L: Final = HALF_CLOSED_LOCAL
_R: Final = HALF_CLOSED_REMOTE
_C: Final = CLOSED

# fmt: off
TRANSITIONS: Final[tuple[tuple[int, ...], ...]] = (
    # recv:                              send:
    # HEADERS DATA END  RST  WINDOW      HEADERS DATA END  RST
    (_O,      _PE, _PE, _PE, _PE,        _O,     _IE, _IE, _IE),  # idle
    (_O,      _O,  _R,  _C,  _O,         _O,     _O,  _L,  _C),   # open
    (_L,      _L,  _C,  _C,  _L,         _IE,    _IE, _IE, _C),   # half closed (local)
    (_SC,     _SC, _SC, _C,  _R,         _R,     _R,  _C,  _C),   # half closed (remote)
    (_SC,     _SC, _SC, _C,  _C,         _IE,    _IE, _IE, _C),   # closed
)
# fmt: on


class Stream:
    """One open stream.  Owned by the connection, in its map from stream id.

    A server's stream whose whole request came at once needs none of this until something is
    queued on it, so the map holds None for it: half closed (remote), nothing sent, the send
    window still the peer's initial one.
    """

    __slots__ = (
        "chunks",
        "content_length",
        "end_queued",
        "got_headers",
        "is_held",
        "queued",
        "received",
        "recv_window",
        "send_window",
        "starved",
        "state",
        "trailers",
    )

    def __init__(self, state: int, send_window: int, recv_window: int) -> None:
        self.state = state
        self.send_window = send_window  # may go below zero when the peer shrinks its setting
        self.recv_window = recv_window
        self.received = 0  # octets of body
        self.content_length = -1  # what the peer announced; -1: nothing
        self.got_headers = False  # the next header block is trailers
        self.is_held = False  # the peer gets no more credit for now
        self.chunks: deque[bytes | memoryview] = deque()  # data that waits for a window
        self.queued = 0  # octets in chunks
        self.end_queued = False  # END_STREAM follows chunks
        self.trailers: bytes | None = None  # the block that carries it, if any
        self.starved = False  # waits in line for the connection's window
