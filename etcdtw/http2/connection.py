"""One HTTP/2 connection, server or client: octets in, events out; calls in, octets out.

Knows no socket and no clock: time is an argument.  `receive` never raises on hostile input, it
reports `events.CLOSED` and leaves a GOAWAY in the output.  Calls for a stream that is already
gone do nothing, because the peer may reset it at any time.

The short cut: a request whose HEADERS and one closing DATA frame stand together in the buffer,
as small unary calls do, is taken in one step and costs no stream object; `reply` answers it in
one step when the windows admit.  Everything else walks through `receiving`, `control` and
`sending`, on which this class stands.  Source: RFC 9113.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from etcdtw.http2 import events, frames
from etcdtw.http2.control import DRAIN_PING
from etcdtw.http2.errors import (
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    PeerError,
    StreamLimitError,
)
from etcdtw.http2.events import UNCHECKED, Event, Field, HeaderList
from etcdtw.http2.fields import NO_LENGTH
from etcdtw.http2.hpack import encode_block
from etcdtw.http2.limits import FRAME_SIZE_MIN, STREAM_ID_MAX, Limits
from etcdtw.http2.receiving import Receiving
from etcdtw.http2.settings import encode_limits
from etcdtw.http2.stream import CLOSED, IDLE, Stream

# Typed, or the compiled module goes through objects for each sum and comparison.
_unpack_header: Final[Callable[[bytes, int], tuple[int, int, int]]] = frames.HEADER.unpack_from
_pack_header: Final = frames.HEADER.pack
_DEFAULT_LIMITS: Final = Limits()
FRAMES_ALL: Final = 1 << 60
PAGE_FRAMES: Final = 16
"""A request that is headers alone costs as many frames: it is no call but a page."""


class Connection(Receiving):
    """The public face.  One instance per transport connection, owned by its shell.

    The shell calls `begin` once, `receive` for what arrives, and writes `take_output` whenever
    `has_output`.  While its transport is congested it should `pause`, take no output (so that
    the bound on control answers can work) and read nothing.  When `is_closed`, write what is left
    and drop.
    """

    def __init__(self, *, client: bool = False, limits: Limits = _DEFAULT_LIMITS) -> None:
        super().__init__(client, limits)
        self._preface = b"" if client else frames.PREFACE  # what the peer still has to send
        self.is_at_fault = False
        """Whether the peer broke the rules, and the connection ended for it."""
        self.has_more = False
        """Whether `receive` left whole frames for its next call."""
        self._left = b""  # what whole frames are left in, from `_left_at` on; while `has_more`
        self._left_at = 0
        # Answers in one step nearly all have the same head.
        self._head_block = b""
        self._pack_head = frames.head_and_data(0).pack
        self._rest = bytearray()  # the head of a frame whose tail has not arrived
        self._rest_need = 0  # no use to look at _rest before it is that long

    # -- output

    @property
    def has_output(self) -> bool:
        """Whether `take_output` would return octets."""
        return bool(self._out)

    @property
    def open_streams(self) -> int:
        """Streams that are not closed, opened by either side."""
        return len(self._streams)

    @property
    def queued_octets(self) -> int:
        """Octets of data of all streams that are not let out yet."""
        return self._queued_octets

    def begin(self) -> None:
        """Queue our preface: the client's magic octets, SETTINGS, the connection's window."""
        if self._client:
            self._out.append(frames.PREFACE)
        self._out.append(encode_limits(self._limits, self._client))

    def take_output(self) -> bytes:
        """Return the octets to write now, and forget them."""
        octets = b"".join(self._out)
        self._out.clear()
        self._taken()
        return octets

    def take_parts(self) -> list[bytes | memoryview]:
        """As `take_output`, without joining what may be much."""
        parts = self._out
        self._out = []
        self._taken()
        return parts

    def _taken(self) -> None:
        """The output is with the shell: as much data as before may be let out again."""
        self._control_octets = 0
        self._let_out = self._send_window
        if self._held_window and not self._starved:  # who stands in line goes before others
            self._open_window()

    def discard(self) -> None:
        """End the connection without a word, and keep nothing of it."""
        self.close()
        self._out.clear()
        self._control_octets = 0

    def pause(self) -> None:
        """The transport is congested: let no data out.  It waits here and shows in `queued`."""
        self._is_paused = True
        self._let_out -= self._send_window
        self._held_window += self._send_window
        self._send_window = 0

    @property
    def holds_data_back(self) -> bool:
        """Whether data waits for nothing but `resume`."""
        return bool(self._starved) and self._held_window > 0

    def resume(self) -> list[Event]:
        """What was taken is written: let out what the windows and our limits admit.

        Returns `events.DRAINED` for each stream whose data is all out.
        """
        self._is_paused = False
        self._open_window()
        return [(events.DRAINED, stream_id) for stream_id in self._feed_starved()]

    def is_gone(self, stream_id: int) -> bool:
        """Whether the stream has ended, though the event that says so may still be on its way."""
        return stream_id not in self._streams

    def queued(self, stream_id: int) -> int:
        """Return the octets of data not yet let out; 0 for a stream that is gone."""
        stream = self._streams.get(stream_id)
        return stream.queued if stream is not None else 0

    # -- input

    def receive(self, data: bytes, now_ms: int, frames_max: int = FRAMES_ALL) -> list[Event]:
        """Take what the transport read at ``now_ms`` and return what it means, in order.

        Looks at about ``frames_max`` frames, fewer of headers; those behind wait for the next
        call (`has_more`), which may bring no octets.  Never raises on anything a peer can send.
        Returns nothing once `is_closed`.
        """
        if self.is_closed:
            self.has_more = False
            return []
        self._now_ms = now_ms
        found: list[Event] = []
        self._events = found
        self.stats.octets_in += len(data)
        start = 0
        if self.has_more:
            # Not copied for each few frames: a read of the socket may hold very many.
            if data:
                data = self._left[self._left_at :] + data
            else:
                data, start = self._left, self._left_at
            self._left = b""
        elif self._rest:
            self._rest += data
            if len(self._rest) < self._rest_need:
                return found
            data = bytes(self._rest)
            self._rest = bytearray()
        try:
            if self._preface:
                data = self._read_preface(data)
            end = self._read_frames(data, start, found, frames_max)
            self._credit_connection()
        except PeerError as fault:
            self.has_more = False
            self._fail(fault)
            return found
        if self.has_more:
            self._left, self._left_at = data, end
        elif end < len(data):
            self._rest = bytearray(data[end:])
        return found

    def _read_preface(self, data: bytes) -> bytes:
        """Match the client's magic octets as far as they have come; return what follows."""
        size = min(len(data), len(self._preface))
        if data[:size] != self._preface[:size]:
            raise PeerError(PROTOCOL_ERROR, b"not an HTTP/2 preface")
        self._preface = self._preface[size:]
        return data[size:]

    def _is_plain(self) -> bool:
        """Whether the next request may take the short cut."""
        return (
            self._got_settings
            and not self._client
            and not self._block_id
            and not self._draining
            and self._queued_octets < self._limits.queued_octets_refuse
        )

    def _read_frames(self, data: bytes, pos: int, found: list[Event], frames_max: int) -> int:
        """Take whole frames of ``data`` from ``pos`` on; return where the rest begins."""
        self.has_more = False
        size_max = self._limits.frame_size_max
        block_max = min(size_max, self._limits.header_block_size_max)
        streams = self._streams
        streams_max = self._limits.max_concurrent_streams
        cached = self._decoder.cache.get
        stop = len(data)
        is_plain = self._is_plain()
        while stop - pos >= 9:
            if frames_max <= 0:
                self.has_more = True
                break
            word, flags, stream_id = _unpack_header(data, pos)
            # Header blocks cost by their octets: each KiB is as good as a frame.
            if word & 0xF7 == 1:
                frames_max -= (word >> 18) + (PAGE_FRAMES if flags & 1 else 1)
            else:
                frames_max -= 1
            end = pos + 9 + (word >> 8)
            if is_plain and flags == 4 and word & 0xFF == 1 and stop - end >= 9:
                # HEADERS, whole and without END_STREAM.  Is a closing DATA next, whole as well?
                data_word, data_flags, data_id = _unpack_header(data, end)
                data_end = end + 9 + (data_word >> 8)
                if (
                    data_flags == 1
                    and data_id == stream_id > self._last_peer_id
                    and stream_id & 0x80000001 == 1
                    and not data_word & 0xFF
                    and data_end <= stop
                    and data_word >> 8 <= size_max
                    and word >> 8 <= block_max
                    and len(streams) < streams_max
                ):
                    block = data[pos + 9 : end]
                    headers = cached(block) or self._decode(block)
                    if headers is None or self._needs_care(headers):
                        self._open(stream_id, headers, False)
                        pos = end
                        continue
                    if stream_id != self._last_peer_id + 2:
                        self._note_skip(stream_id)
                    self._last_peer_id = stream_id
                    streams[stream_id] = None
                    found.append((events.REQUEST, stream_id, headers, data[end + 9 : data_end]))
                    frames_max -= data_word >> 18  # bodies cost by their octets, too
                    self._recv_window -= data_word >> 8
                    self.stats.streams += 1
                    self.stats.frames_in += 2
                    pos = data_end
                    continue
            if word >> 8 > size_max:
                raise PeerError(FRAME_SIZE_ERROR, b"frame too large")
            if end > stop:
                self._rest_need = end - pos
                return pos
            self.stats.frames_in += 1
            self._on_frame(word & 0xFF, flags, stream_id & 0x7FFFFFFF, data[pos + 9 : end])
            is_plain = self._is_plain()
            pos = end
        self._rest_need = 9
        return pos

    def _needs_care(self, headers: HeaderList) -> bool:
        """Whether a request is malformed or announces a length that its body must match."""
        length = headers.request_length
        if length == UNCHECKED:
            length = self._request_length(headers)
        return length != NO_LENGTH

    def _note_skip(self, stream_id: int) -> None:
        if stream_id > self._last_peer_id + 2:
            self._skipped_ids = True

    def _credit_connection(self) -> None:
        """Give the peer its connection window back in bulk, once half of it is used."""
        whole = self._limits.connection_window
        if self._recv_window < 0:
            raise PeerError(FLOW_CONTROL_ERROR, b"connection window overrun")
        if self._recv_window <= whole // 2:
            self._control(frames.encode_window_update(0, whole - self._recv_window))
            self._recv_window = whole

    def _fail(self, fault: PeerError) -> None:
        """End everything: GOAWAY out, the event up, all state dropped."""
        self.is_at_fault = True
        self._events.append((events.CLOSED, fault.code, fault.text))
        self.close(fault.code, fault.text)

    # -- calls

    @property
    def is_settled(self) -> bool:
        """Whether the peer has said what it allows: it speaks HTTP/2."""
        return self._got_settings

    @property
    def has_room(self) -> bool:
        """Client role: whether `open_stream` would return an id."""
        return (
            not self.is_closed
            and not self._draining
            and self._next_id <= STREAM_ID_MAX
            and len(self._streams) < self._peer.max_concurrent_streams
        )

    def hold(self, stream_id: int) -> None:
        """Let the peer send what it has credit for on this stream, and no more."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.is_held = True

    def release(self, stream_id: int) -> None:
        """Undo `hold`."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.is_held:
            return
        stream.is_held = False
        if stream.recv_window <= self._limits.stream_window // 2:
            self._credit_stream(stream_id, stream)

    def open_stream(self) -> int:
        """Client role: return the id for a new request, to be begun by `send_headers`.

        Raises `StreamLimitError` when the peer's limit is reached, a GOAWAY was seen or sent,
        or the ids are used up.
        """
        assert self._client, "a server opens no streams"
        if self.is_closed or self._draining:
            raise StreamLimitError("the connection takes no new streams")
        if len(self._streams) >= self._peer.max_concurrent_streams:
            raise StreamLimitError("the peer's concurrent streams are in use")
        stream_id = self._next_id
        if stream_id > STREAM_ID_MAX:
            raise StreamLimitError("the stream ids are used up")
        self._next_id = stream_id + 2
        self._streams[stream_id] = Stream(IDLE, self._peer_window, self._limits.stream_window)
        self.stats.streams += 1
        return stream_id

    def send_headers(
        self, stream_id: int, headers: Sequence[Field] | bytes, end_stream: bool = False
    ) -> None:
        """Send the head of a message; ``headers`` as fields or as a block of `encode_block`."""
        self._begin_message(stream_id, _as_block(headers), end_stream)

    def send_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Send body octets as the windows admit; the rest waits, in order (see `queued`)."""
        stream = self._streams.get(stream_id)
        size = len(data)
        if (
            stream is None
            or end_stream
            or stream.end_queued
            or stream.queued
            or not 0 < size <= self._peer_frame_size
            or size > self._send_window
            or size > stream.send_window
        ):
            self._enqueue(stream_id, data, end_stream)
            return
        assert stream.state != IDLE, "DATA before HEADERS"
        stream.send_window -= size
        self._send_window -= size
        self._out += (_pack_header(size << 8, 0, stream_id), data)
        self._sent_since_ping = True
        self.stats.data_frames_out += 1

    def send_trailers(self, stream_id: int, headers: Sequence[Field] | bytes) -> None:
        """End the stream with a header block, behind all queued data."""
        self._enqueue_trailers(stream_id, _as_block(headers))

    def reply(
        self,
        stream_id: int,
        head_block: bytes,
        data: bytes,
        trailers_block: bytes,
        prefix: bytes = b"",
    ) -> None:
        """Send a whole response: head, body, trailers.  In one step when the windows admit.

        The body is ``prefix`` and ``data``, which so need not be joined first.
        """
        size = len(prefix) + len(data)
        if (
            self._streams.get(stream_id, _GONE) is not None
            or size > self._peer_frame_size
            or size > self._send_window
            or size > self._peer_window
            or self._starved
            or self._block_prefix
            or len(head_block) > FRAME_SIZE_MIN
            or len(trailers_block) > FRAME_SIZE_MIN
        ):
            self._begin_message(stream_id, head_block, False)
            self._enqueue(stream_id, prefix + data, False)
            self._enqueue_trailers(stream_id, trailers_block)
            return
        if head_block is not self._head_block:
            self._head_block = head_block
            self._pack_head = frames.head_and_data(len(head_block)).pack
        self._send_window -= size
        self._out += (
            self._pack_head(
                len(head_block) << 8 | 1, 4, stream_id, head_block, size << 8, 0, stream_id
            ),
            prefix,
            data,
            _pack_header(len(trailers_block) << 8 | 1, 5, stream_id),
            trailers_block,
        )
        self._sent_since_ping = True
        self.stats.data_frames_out += 1
        if self._draining:
            self._drop_stream(stream_id)
        else:
            del self._streams[stream_id]

    def reset(self, stream_id: int, error_code: int) -> None:
        """End the stream at once and drop what is queued on it."""
        if stream_id not in self._streams:
            return
        stream = self._streams[stream_id]
        if stream is not None and stream.state == IDLE:
            self._drop_stream(stream_id)  # the peer never heard of it
            self._forget(stream_id)
            return
        self._write_reset(stream_id, error_code)

    def ping(self, opaque: bytes) -> None:
        """Ask the peer for a sign of life: 8 octets that come back in `events.PING_ACK`."""
        assert len(opaque) == 8
        if not self.is_closed:
            self._pings_out += 1
            self._out.append(frames.encode_ping(opaque))

    def close(self, error_code: int = NO_ERROR, text: bytes = b"") -> None:
        """End the connection now: GOAWAY with ``text`` as debug data; all streams are gone."""
        if self.is_closed:
            return
        last_id = min(self._last_peer_id, self._served_last_id)
        self._out.append(frames.encode_goaway(last_id, error_code, text))
        self.is_closed = True
        self._streams.clear()
        self._starved.clear()
        self._queued_octets = 0
        self._left = b""
        self._rest = bytearray()

    def drain(self) -> None:
        """Take no new streams, serve those that are open, then become `is_closed`.

        A server announces it first, and names its last stream when the peer has answered a ping,
        so that no request on the way is lost (RFC 9113 6.8).  Bound the wait with `close`.
        """
        if self.is_closed or self._draining or self._drain_waits:
            return
        if self._client:
            self._announce_last_stream()
            return
        self._drain_waits = True
        self._out.append(frames.encode_goaway(STREAM_ID_MAX, NO_ERROR))
        self._out.append(frames.encode_ping(DRAIN_PING))


_GONE: Final = Stream(CLOSED, 0, 0)


def _as_block(headers: Sequence[Field] | bytes) -> bytes:
    return headers if isinstance(headers, bytes) else encode_block(headers)
