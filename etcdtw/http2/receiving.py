"""The messages a connection receives: header blocks and data, and which frame is whose.

Knows whole frames only; `connection` cuts them out of the octets and takes the short cut for
small requests, `control` knows the other frames.  Breaches end as there.
Source: RFC 9113 sections 4.3, 5.1, 6.1, 6.2, 6.10 and 8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcdtw.http2 import events, fields, frames
from etcdtw.http2.control import Control, depends_on
from etcdtw.http2.errors import (
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    CompressionError,
    PeerError,
    TooManyFieldsError,
)
from etcdtw.http2.events import UNCHECKED, HeaderList
from etcdtw.http2.limits import Limits
from etcdtw.http2.stream import (
    CLOSED,
    IDLE,
    OPEN,
    RECV_DATA,
    RECV_END,
    RECV_HEADERS,
    TRANSITIONS,
    Stream,
)

_END: Final = frames.FLAG_END_STREAM
_SELF_DEPENDENT: Final = 0x100
"""Beyond the octet of flags: HEADERS whose priority names their own stream."""


class Receiving(Control):
    """The meaning of frames.  One method per frame type, in `_READERS` by type."""

    def __init__(self, client: bool, limits: Limits) -> None:
        super().__init__(client, limits)
        self._skipped_ids = False  # the peer left out ids: closed ones cannot be told from unused
        self._block_id = 0  # stream whose header block is not complete; 0: none
        self._block_flags = 0
        self._block_count = 0  # its CONTINUATION frames
        self._block = bytearray()

    # -- header blocks

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            # 0 is no stream; even ones are a server's, and we take no push.
            raise PeerError(PROTOCOL_ERROR, b"HEADERS on such a stream")
        if flags & frames.FLAG_PADDED:
            payload = _unpad(payload)
        if flags & frames.FLAG_PRIORITY:
            if len(payload) < 5:
                raise PeerError(FRAME_SIZE_ERROR, b"HEADERS too short for priority")
            if depends_on(payload) == stream_id:
                flags |= _SELF_DEPENDENT
            payload = payload[5:]
        if flags & frames.FLAG_END_HEADERS:
            self._on_block(stream_id, payload, flags)
            return
        self._block_id = stream_id
        self._block_flags = flags
        self._block_count = 0
        self._block = bytearray(payload)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not self._block_id:
            raise PeerError(PROTOCOL_ERROR, b"CONTINUATION without a header block")
        self._block_count += 1
        self._block += payload
        if (
            self._block_count > self._limits.continuation_count_max
            or len(self._block) > self._limits.header_block_size_max
        ):
            raise PeerError(ENHANCE_YOUR_CALM, b"header block too long")
        if flags & frames.FLAG_END_HEADERS:
            self._block_id = 0
            block = bytes(self._block)
            self._block = bytearray()
            self._on_block(stream_id, block, self._block_flags)

    def _on_block(self, stream_id: int, block: bytes, flags: int) -> None:
        if len(block) > self._limits.header_block_size_max:
            raise PeerError(ENHANCE_YOUR_CALM, b"header block too long")
        # Decoded whatever becomes of the stream: the table is the connection's.
        headers = self._decode(block)
        if flags & _SELF_DEPENDENT:
            headers = HeaderList((), clean=False)
        end_stream = bool(flags & _END)
        stream = self._stream(stream_id)
        if stream is None:
            if not self._client and stream_id > self._last_peer_id:
                self._open(stream_id, headers, end_stream)
            else:
                self._refuse_block(stream_id)
            return
        if stream.state == IDLE:
            raise PeerError(PROTOCOL_ERROR, b"HEADERS on an idle stream")
        state = TRANSITIONS[stream.state][RECV_HEADERS]
        if state < 0:
            self._stream_error(stream_id, -state)
        elif headers is None:
            self._stream_error(stream_id, ENHANCE_YOUR_CALM)
        elif stream.got_headers:
            self._on_trailers(stream_id, stream, headers, end_stream)
        else:
            self._on_response(stream_id, stream, headers, end_stream)

    def _decode(self, block: bytes) -> HeaderList | None:
        try:
            return self._decoder.decode(block)
        except TooManyFieldsError as excess:  # of another name: mypyc gives each one type
            raise PeerError(ENHANCE_YOUR_CALM, str(excess).encode()) from excess
        except CompressionError as fault:
            raise PeerError(COMPRESSION_ERROR, str(fault).encode()) from fault

    def _refuse_block(self, stream_id: int) -> None:
        """A header block for a stream that is not open and cannot be opened."""
        if stream_id in self._forgotten:
            self._charge_idle()
        elif self._is_idle(stream_id) or self._skipped_ids:
            raise PeerError(PROTOCOL_ERROR, b"HEADERS on an idle stream")
        else:
            raise PeerError(STREAM_CLOSED, b"HEADERS on a closed stream")

    def _open(self, stream_id: int, headers: HeaderList | None, end_stream: bool) -> None:
        """Server role: a new request."""
        limits = self._limits
        if stream_id > self._last_peer_id + 2:
            self._skipped_ids = True
        self._last_peer_id = stream_id
        if self._draining:
            self._forget(stream_id)  # the final GOAWAY told that it would be ignored
            return
        if (
            len(self._streams) >= limits.max_concurrent_streams
            or self._queued_octets >= limits.queued_octets_refuse
        ):
            # Honest clients try again, so this counts less than a reset.
            self.stats.refused += 1
            self._charge_idle()
            self._write_reset(stream_id, REFUSED_STREAM)
            return
        if headers is None:
            self._stream_error(stream_id, ENHANCE_YOUR_CALM)
            return
        length = self._request_length(headers)
        if length == fields.MALFORMED or (end_stream and length > 0):
            self._stream_error(stream_id, PROTOCOL_ERROR)
            return
        self.stats.streams += 1
        if end_stream:
            self._streams[stream_id] = None
        else:
            stream = Stream(OPEN, self._peer_window, limits.stream_window)
            stream.got_headers = True
            stream.content_length = length
            self._streams[stream_id] = stream
        self._events.append((events.HEADERS, stream_id, headers, end_stream))

    def _request_length(self, headers: HeaderList) -> int:
        """Return the content-length or one of the verdicts of `fields.check_request`."""
        length = headers.request_length
        if length == UNCHECKED:
            length = fields.check_request(headers.fields) if headers.clean else fields.MALFORMED
            headers.request_length = length
        return length

    def _on_response(
        self, stream_id: int, stream: Stream, headers: HeaderList, end_stream: bool
    ) -> None:
        """Client role: the head of the response, or an interim one, which nobody needs."""
        status, length = fields.check_response(headers.fields)
        if not headers.clean or status == 0 or (status < 200 and end_stream):
            self._stream_error(stream_id, PROTOCOL_ERROR)
            return
        if status < 200:
            self._charge_idle()
            return
        stream.got_headers = True
        stream.content_length = length
        self._events.append((events.HEADERS, stream_id, headers, end_stream))
        if end_stream:
            # The length of a response without body is that of another one (HEAD, 304).
            self._end_remote(stream_id, stream)

    def _on_trailers(
        self, stream_id: int, stream: Stream, headers: HeaderList, end_stream: bool
    ) -> None:
        if (
            not end_stream
            or not headers.clean
            or not fields.check_trailers(headers.fields)
            or stream.content_length not in (-1, stream.received)
        ):
            self._stream_error(stream_id, PROTOCOL_ERROR)
            return
        self._events.append((events.TRAILERS, stream_id, headers))
        self._end_remote(stream_id, stream)

    def _end_remote(self, stream_id: int, stream: Stream) -> None:
        """The peer ended its half."""
        stream.state = TRANSITIONS[stream.state][RECV_END]
        if stream.state == CLOSED:
            self._drop_stream(stream_id)
        elif not self._client and stream.send_window == self._peer_window and not stream.queued:
            # Nothing sent that the mark could not stand for: `reply` may take its short cut.
            self._streams[stream_id] = None

    # -- data

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise PeerError(PROTOCOL_ERROR, b"DATA on stream 0")
        size = len(payload)
        self._recv_window -= size
        if self._recv_window < 0:
            raise PeerError(FLOW_CONTROL_ERROR, b"connection window overrun")
        if flags & frames.FLAG_PADDED:
            payload = _unpad(payload)
        end_stream = bool(flags & _END)
        if not payload and not end_stream:
            self._charge_idle()
        stream = self._stream(stream_id)
        if stream is None:
            self._on_stray_data(stream_id)
            return
        state = TRANSITIONS[stream.state][RECV_DATA]
        if state == -PROTOCOL_ERROR:
            raise PeerError(PROTOCOL_ERROR, b"DATA on an idle stream")
        stream.recv_window -= size
        stream.received += len(payload)
        code = -state if state < 0 else self._data_fault(stream, end_stream)
        if code:
            self._stream_error(stream_id, code)
            return
        self._emit_data(stream_id, payload, end_stream)
        if end_stream:
            self._end_remote(stream_id, stream)
        elif stream.recv_window <= self._limits.stream_window // 2 and not stream.is_held:
            self._credit_stream(stream_id, stream)

    def _credit_stream(self, stream_id: int, stream: Stream) -> None:
        """Give the peer the stream's window back."""
        increment = self._limits.stream_window - stream.recv_window
        stream.recv_window += increment
        self._control(frames.encode_window_update(stream_id, increment))

    def _on_stray_data(self, stream_id: int) -> None:
        if self._is_idle(stream_id):
            raise PeerError(PROTOCOL_ERROR, b"DATA on an idle stream")
        if stream_id in self._forgotten:
            return
        self._stream_error(stream_id, STREAM_CLOSED)

    def _data_fault(self, stream: Stream, end_stream: bool) -> int:
        """Return the error code that this DATA frame earns, 0 when it is right."""
        if stream.recv_window < 0:
            return FLOW_CONTROL_ERROR
        if not stream.got_headers:
            return PROTOCOL_ERROR
        length = stream.content_length
        if length >= 0 and (stream.received > length or (end_stream and stream.received < length)):
            return PROTOCOL_ERROR
        return 0

    def _emit_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """Report data; a request that turns out complete becomes one event."""
        found = self._events
        if end_stream and found:
            last = found[-1]
            if not data and last[0] == events.DATA and last[1] == stream_id:
                data = last[2]  # some clients end a stream by an empty frame
                found.pop()
                last = found[-1] if found else last
            if last[0] == events.HEADERS and last[1] == stream_id and not self._client:
                found[-1] = (events.REQUEST, stream_id, last[2], data)
                return
        found.append((events.DATA, stream_id, data, end_stream))

    def _on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Take one whole frame of any type."""
        if self._block_id and (kind != frames.CONTINUATION or stream_id != self._block_id):
            raise PeerError(PROTOCOL_ERROR, b"header block interrupted")
        if not self._got_settings and (kind != frames.SETTINGS or flags & frames.FLAG_ACK):
            raise PeerError(PROTOCOL_ERROR, b"no SETTINGS first")
        if kind == frames.DATA:
            self._on_data(flags, stream_id, payload)  # not through the table: it is the usual one
        elif kind < len(_READERS):
            _READERS[kind](self, flags, stream_id, payload)
        else:
            self._charge_idle()  # unknown types are ignored (5.5)
        if self._control_octets > self._limits.control_octets_max:
            raise PeerError(ENHANCE_YOUR_CALM, b"control frames outrun the reader")


def _unpad(payload: bytes) -> bytes:
    """Return the content of a padded payload (6.1)."""
    if not payload:
        raise PeerError(FRAME_SIZE_ERROR, b"no pad length")
    end = len(payload) - payload[0]
    if end < 1:
        raise PeerError(PROTOCOL_ERROR, b"padding longer than the frame")
    return payload[1:end]


_READERS: Final[tuple[Callable[[Receiving, int, int, bytes], None], ...]] = (
    Receiving._on_data,
    Receiving._on_headers,
    Receiving._on_priority,
    Receiving._on_reset,
    Receiving._on_settings,
    Receiving._on_push_promise,
    Receiving._on_ping,
    Receiving._on_goaway,
    Receiving._on_window_update,
    Receiving._on_continuation,
)
