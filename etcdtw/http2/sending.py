"""The sending half of a connection: output, windows of the peer, queued data.

Knows what the peer allows (its SETTINGS and WINDOW_UPDATEs) and keeps back what it does not.
`control` and `receiving` put the reading half on top, `connection` the public face.

Queued data waits in its stream.  A stream that is stopped by the connection's window stands in
line (`_starved`) and gets its turn, a quantum at a time, when that window opens; one that is
stopped by its own window waits for its own WINDOW_UPDATE.
"""

from __future__ import annotations

from typing import Final

from etcdtw.http2 import frames
from etcdtw.http2.errors import NO_ERROR
from etcdtw.http2.hpack import Decoder
from etcdtw.http2.limits import FRAME_SIZE_MIN, WINDOW_DEFAULT, Limits
from etcdtw.http2.stats import Stats
from etcdtw.http2.stream import (
    CLOSED,
    HALF_CLOSED_REMOTE,
    IDLE,
    SEND_DATA,
    SEND_END,
    SEND_HEADERS,
    TRANSITIONS,
    Stream,
)

QUANTUM: Final = 65_536
"""Octets one starved stream may send before the next one's turn."""

WORK_OCTETS_MIN: Final = 1_024
"""A piece of data below this size is no work that earns a peer tokens: it cut it by its window."""
WINDOW_ALL: Final = 2**31
"""A quantum no window exceeds."""

_pack: Final = frames.HEADER.pack


class Sending:
    """Output queue, send windows and the streams' send side of one connection."""

    def __init__(self, client: bool, limits: Limits) -> None:
        self.is_closed = False
        self.stats = Stats()
        self._client = client
        self._limits = limits
        self._out: list[bytes | memoryview] = []
        self._control_octets = 0  # answers to control frames in _out
        self._streams: dict[int, Stream | None] = {}
        self._forgotten: dict[int, None] = {}  # streams we reset lately, oldest first
        # The connection's window: what may be let out now (0 while paused), and what is held back.
        self._send_window = WINDOW_DEFAULT
        self._held_window = 0
        self._let_out = WINDOW_DEFAULT  # _send_window, and the octets of data in _out
        self._is_paused = False
        self._peer_window = WINDOW_DEFAULT  # SETTINGS_INITIAL_WINDOW_SIZE
        self._peer_frame_size = FRAME_SIZE_MIN
        self._queued_octets = 0
        self._starved: dict[int, Stream] = {}
        self._block_prefix = b""  # a table size update that the next block has to carry
        self._sent_since_ping = False
        self._draining = False
        self._decoder = Decoder(
            limits.header_table_size, limits.header_list_size_max, limits.block_cache_count_max
        )

    # -- output

    def _control(self, octets: bytes) -> None:
        """Queue the answer to a control frame; `receive` checks how many of them wait."""
        self._out.append(octets)
        self._control_octets += len(octets)

    def _write_headers(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        if self._block_prefix:
            block = self._block_prefix + block
            self._block_prefix = b""
        self._sent_since_ping = True
        self._out.append(frames.encode_headers(stream_id, block, end_stream, self._peer_frame_size))

    # -- streams

    def _stream(self, stream_id: int) -> Stream | None:
        """Return the stream, made real if it was only a mark in the map; None: it is gone."""
        stream = self._streams.get(stream_id)
        if stream is None and stream_id in self._streams:
            stream = Stream(HALF_CLOSED_REMOTE, self._peer_window, self._limits.stream_window)
            stream.got_headers = True
            self._streams[stream_id] = stream
        return stream

    def _drop_stream(self, stream_id: int) -> None:
        """Forget a closed stream and what was queued on it."""
        stream = self._streams.pop(stream_id, None)
        if stream is not None and stream.queued:
            self._queued_octets -= stream.queued
            stream.queued = 0
            stream.chunks.clear()
        if stream is not None and stream.starved:
            stream.starved = False
            self._starved.pop(stream_id, None)
        if not self._streams and self._draining:
            self._finish_drain()

    def _finish_drain(self) -> None:
        """The last stream of a connection that takes no more is gone."""
        self.is_closed = True

    def _forget(self, stream_id: int) -> None:
        """Remember that late frames of this stream mean nothing."""
        self._forgotten[stream_id] = None
        if len(self._forgotten) > self._limits.reset_memory_count_max:
            del self._forgotten[next(iter(self._forgotten))]

    def _write_reset(self, stream_id: int, error_code: int) -> None:
        """Send RST_STREAM and ignore what the peer sent before it reads that."""
        self._drop_stream(stream_id)
        self._forget(stream_id)
        self.stats.resets_out += 1
        self._control(frames.encode_reset(stream_id, error_code))

    # -- messages

    def _begin_message(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        stream = self._stream(stream_id)
        if stream is None:
            return
        if stream.queued:
            assert end_stream, "HEADERS between queued data"
            self._enqueue_trailers(stream_id, block)
            return
        assert not stream.end_queued, "HEADERS behind END_STREAM"
        assert stream.state != IDLE or self._client
        state = TRANSITIONS[stream.state][SEND_HEADERS]
        assert state >= 0, "HEADERS behind END_STREAM"
        stream.state = state
        self._write_headers(stream_id, block, end_stream)
        if end_stream:
            self._end_local(stream_id, stream)

    def _enqueue(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """Send what the windows admit now and keep the rest."""
        stream = self._stream(stream_id)
        if stream is None:
            return
        assert not stream.end_queued, "DATA behind END_STREAM"
        assert TRANSITIONS[stream.state][SEND_DATA] >= 0, "DATA on a stream that cannot send"
        if data:
            stream.chunks.append(data)
            stream.queued += len(data)
            self._queued_octets += len(data)
        if end_stream:
            stream.end_queued = True
        if not stream.starved:
            self._flush(stream_id, stream, WINDOW_ALL)

    def _enqueue_trailers(self, stream_id: int, block: bytes) -> None:
        stream = self._stream(stream_id)
        if stream is None:
            return
        assert not stream.end_queued, "trailers behind END_STREAM"
        assert TRANSITIONS[stream.state][SEND_DATA] >= 0, "trailers on a stream that cannot send"
        stream.trailers = block
        stream.end_queued = True
        if not stream.queued:
            self._end_message(stream_id, stream)

    def _flush(self, stream_id: int, stream: Stream, quantum: int) -> int:
        """Send at most ``quantum`` octets of what is queued; return how many went out.

        The last one takes END_STREAM or the trailers along.  A stream that stops because the
        connection's window is shut gets in line.
        """
        sent = 0
        chunks = stream.chunks
        while chunks:
            room = min(self._send_window, stream.send_window, self._peer_frame_size, quantum - sent)
            if room <= 0:
                break
            chunk = chunks[0]
            size = len(chunk)
            if size <= room:
                chunks.popleft()
            else:
                size = room
                view = memoryview(chunk)  # slicing octets would copy the rest for each frame
                chunks[0] = view[size:]
                chunk = view[:size]
            sent += size
            stream.queued -= size
            stream.send_window -= size
            self._send_window -= size
            last = stream.end_queued and stream.trailers is None and not chunks
            self._out += (_pack(size << 8, 1 if last else 0, stream_id), chunk)
            if size >= WORK_OCTETS_MIN or not chunks:
                self.stats.data_frames_out += 1
        if sent:
            self._sent_since_ping = True
            self._queued_octets -= sent
        if not chunks:
            if stream.end_queued:
                self._end_message(stream_id, stream, bool(sent))
        elif stream.send_window > 0 and not stream.starved:
            stream.starved = True
            self._starved[stream_id] = stream
        return sent

    def _end_message(self, stream_id: int, stream: Stream, flagged: bool = False) -> None:
        """Everything queued is out: send what ends the stream, unless a DATA frame did."""
        if stream.trailers is not None:
            self._write_headers(stream_id, stream.trailers, True)
        elif not flagged:
            self._sent_since_ping = True
            self._out.append(_pack(0, frames.FLAG_END_STREAM, stream_id))
        self._end_local(stream_id, stream)

    def _end_local(self, stream_id: int, stream: Stream) -> None:
        """We sent END_STREAM.  A server that answered in full wants no more of the request."""
        stream.state = TRANSITIONS[stream.state][SEND_END]
        stream.end_queued = True
        if stream.state == CLOSED:
            self._drop_stream(stream_id)
        elif not self._client:
            self._write_reset(stream_id, NO_ERROR)

    def _open_window(self) -> None:
        """Let out as much as `Limits.output_octets_max` admits of the window that is held."""
        opened = min(self._held_window, self._limits.output_octets_max - self._let_out)
        if opened > 0 and not self._is_paused:
            self._held_window -= opened
            self._send_window += opened
            self._let_out += opened

    def _feed_starved(self) -> list[int]:
        """Spend the connection's window on those in line; return the streams that drained."""
        drained: list[int] = []
        line = self._starved
        while line and self._send_window > 0:
            stream_id = next(iter(line))
            stream = line.pop(stream_id)
            stream.starved = False
            self._flush(stream_id, stream, QUANTUM)
            if not stream.queued:
                drained.append(stream_id)
        return drained
