"""The control frames of a connection: settings, windows, pings, resets, farewells.

Judges whether such a frame may come and what it costs the peer; DATA and header blocks are
`receiving`'s, on top of it.  A breach that costs the stream is answered here; one that costs the
connection is raised as `PeerError`.  Source: RFC 9113 sections 5.3 and 6.3 to 6.9.
"""

from __future__ import annotations

from typing import Final

from etcdtw.http2 import events, frames
from etcdtw.http2.errors import (
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    PeerError,
)
from etcdtw.http2.events import Event
from etcdtw.http2.flow import TokenBucket
from etcdtw.http2.hpack import SIZE_UPDATE_ZERO
from etcdtw.http2.limits import STREAM_ID_MAX, WINDOW_MAX, Limits
from etcdtw.http2.sending import WINDOW_ALL, Sending
from etcdtw.http2.settings import PeerSettings, read_settings
from etcdtw.http2.stream import IDLE, Stream

DRAIN_PING: Final = b"etcdtw-d"
"""Opaque octets of the ping whose answer tells that the peer has read our first GOAWAY."""


def depends_on(priority: bytes) -> int:
    """Return the stream that a priority field of five octets or more names."""
    named: int = frames.U32.unpack_from(priority)[0]
    return named & frames.STREAM_ID_MASK


class Control(Sending):
    """What a connection knows of its peer, and the frames that change it."""

    def __init__(self, client: bool, limits: Limits) -> None:
        super().__init__(client, limits)
        self._now_ms = 0
        self._events: list[Event] = []
        self._peer = PeerSettings()
        self._got_settings = False
        self._last_peer_id = 0  # highest stream the peer opened
        self._served_last_id = STREAM_ID_MAX  # what our final GOAWAY named
        self._next_id = 1  # client role: our next stream
        self._drain_waits = False  # the first GOAWAY of `drain` is out, its ping not yet answered
        self._recv_window = limits.connection_window
        self._resets = TokenBucket(limits.resets_burst, limits.resets_per_s)
        self._settings = TokenBucket(limits.settings_burst, limits.settings_per_s)
        self._pings = TokenBucket(limits.pings_burst, limits.pings_per_s)
        self._idle_frames = TokenBucket(limits.idle_frames_burst, limits.idle_frames_per_s)
        self._work_seen = 0  # streams and DATA frames already turned into idle-frame tokens
        self._pings_out = 0  # of `ping`, not yet answered
        self._ping_strikes = 0
        self._last_ping_ms: int | None = None

    # -- costs

    def _charge_idle(self) -> None:
        """Take a token for a frame that carries nothing."""
        work = self.stats.streams + self.stats.data_frames_out
        earned = (work - self._work_seen) * self._limits.idle_frames_per_work
        self._work_seen = work
        if not self._idle_frames.take(self._now_ms, earned):
            raise PeerError(ENHANCE_YOUR_CALM, b"too many empty frames")

    def _charge_reset(self) -> None:
        if not self._resets.take(self._now_ms):
            raise PeerError(ENHANCE_YOUR_CALM, b"too many resets")

    def _stream_error(self, stream_id: int, code: int) -> None:
        """The peer's fault costs it this stream.  Counts like a reset of its own: a peer must
        not make us open and reset streams at no price."""
        self._charge_reset()
        if stream_id in self._streams:
            self._events.append((events.RESET, stream_id, code))
        self._write_reset(stream_id, code)

    def _is_idle(self, stream_id: int) -> bool:
        """Tell whether a stream that is not in the map was never opened."""
        if self._client:
            return not stream_id & 1 or stream_id >= self._next_id
        return not stream_id & 1 or stream_id > self._last_peer_id

    # -- frames

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Checked and ignored: RFC 9113 5.3.2 deprecates it.

        A stream that depends on itself is a breach of RFC 7540 5.3.1, which h2spec still tests.
        """
        if not stream_id:
            raise PeerError(PROTOCOL_ERROR, b"PRIORITY on stream 0")
        self._charge_idle()
        if len(payload) != 5:
            code = FRAME_SIZE_ERROR
        elif depends_on(payload) == stream_id:
            code = PROTOCOL_ERROR
        else:
            return
        if stream_id not in self._streams:
            # A stream that is not open cannot be reset.
            raise PeerError(code, b"bad PRIORITY")
        self._stream_error(stream_id, code)

    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise PeerError(FRAME_SIZE_ERROR, b"RST_STREAM of a wrong size")
        known = stream_id in self._streams
        if not known and self._is_idle(stream_id):
            raise PeerError(PROTOCOL_ERROR, b"RST_STREAM on an idle stream")
        self.stats.resets_in += 1
        if not known:
            self._charge_idle()  # it crossed our answer: no work was wasted
        else:
            self._charge_reset()
            self._drop_stream(stream_id)
            code: int = frames.U32.unpack(payload)[0]
            self._events.append((events.RESET, stream_id, code))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise PeerError(PROTOCOL_ERROR, b"SETTINGS on a stream")
        self.stats.settings_in += 1
        if not self._settings.take(self._now_ms):
            raise PeerError(ENHANCE_YOUR_CALM, b"too many settings")
        if flags & frames.FLAG_ACK:
            if payload:
                raise PeerError(FRAME_SIZE_ERROR, b"SETTINGS acknowledgement with payload")
            return
        before = self._peer
        peer = read_settings(payload, before, self._client)
        self._peer = peer
        self._peer_frame_size = peer.frame_size_max
        if peer.lowest_table_size < before.header_table_size:
            self._block_prefix = SIZE_UPDATE_ZERO
        self._got_settings = True
        self._control(frames.SETTINGS_ACK)
        if peer.initial_window != before.initial_window:
            self._move_windows(peer.initial_window - before.initial_window)

    def _move_windows(self, delta: int) -> None:
        """Apply a change of SETTINGS_INITIAL_WINDOW_SIZE to every open stream (6.9.2)."""
        self._peer_window += delta
        for stream_id, stream in list(self._streams.items()):
            if stream is None:
                continue
            stream.send_window += delta
            if stream.send_window > WINDOW_MAX:
                raise PeerError(FLOW_CONTROL_ERROR, b"stream window over its maximum")
            if delta > 0 and stream.queued:
                self._resume(stream_id, stream)

    def _resume(self, stream_id: int, stream: Stream) -> None:
        """A stream's own window opened."""
        if not stream.starved:
            self._flush(stream_id, stream, WINDOW_ALL)
            if not stream.queued:
                self._events.append((events.DRAINED, stream_id))

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise PeerError(PROTOCOL_ERROR, b"PUSH_PROMISE is not allowed here")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise PeerError(PROTOCOL_ERROR, b"PING on a stream")
        if len(payload) != 8:
            raise PeerError(FRAME_SIZE_ERROR, b"PING of a wrong size")
        self.stats.pings_in += 1
        if flags & frames.FLAG_ACK:
            if self._drain_waits and payload == DRAIN_PING:
                self._announce_last_stream()
            elif not self._pings_out:
                self._charge_idle()  # nobody asked
            else:
                self._pings_out -= 1
                self._events.append((events.PING_ACK, payload))
            return
        self._control(frames.encode_ping(payload, ack=True))
        self._judge_ping()

    def _judge_ping(self) -> None:
        """Hold a ping against the keepalive policy, as grpc-go's server does.

        What we sent since the last ping excuses this one: clients measure bandwidth by pings
        that follow our data.
        """
        limits = self._limits
        last_ms = self._last_ping_ms
        self._last_ping_ms = self._now_ms
        if self._sent_since_ping:
            self._sent_since_ping = False
            self._ping_strikes = 0
            return
        if not self._pings.take(self._now_ms):
            raise PeerError(ENHANCE_YOUR_CALM, b"too_many_pings")
        if self._client or not limits.keepalive_enforced or last_ms is None:
            return
        if self._streams or limits.keepalive_permit_without_stream:
            least_ms = limits.keepalive_min_ms
        else:
            least_ms = limits.keepalive_idle_ms
        if self._now_ms - last_ms < least_ms:
            self._ping_strikes += 1
            if self._ping_strikes > limits.keepalive_strikes_max:
                raise PeerError(ENHANCE_YOUR_CALM, b"too_many_pings")

    def _announce_last_stream(self) -> None:
        """Send the GOAWAY that names the last stream we serve."""
        self._drain_waits = False
        self._draining = True
        self._served_last_id = self._last_peer_id
        self._control(frames.encode_goaway(self._last_peer_id, NO_ERROR))
        if not self._streams:
            self._finish_drain()

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise PeerError(PROTOCOL_ERROR, b"GOAWAY on a stream")
        if len(payload) < 8:
            raise PeerError(FRAME_SIZE_ERROR, b"GOAWAY of a wrong size")
        self._charge_idle()
        self.stats.goaways_in += 1
        last_id, code = frames.PAIR.unpack_from(payload)
        last_id &= frames.STREAM_ID_MASK
        self._events.append((events.GOAWAY, last_id, code, payload[8:]))
        if self._client:
            # The server never looked at these: safe to try again elsewhere.
            for lost_id in [known for known in self._streams if known > last_id]:
                self._events.append((events.RESET, lost_id, REFUSED_STREAM))
                self._drop_stream(lost_id)
            self._draining = True
            if not self._streams:
                self._finish_drain()

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise PeerError(FRAME_SIZE_ERROR, b"WINDOW_UPDATE of a wrong size")
        self._charge_idle()
        increment: int = frames.U32.unpack(payload)[0] & WINDOW_MAX
        if not stream_id:
            self._open_connection_window(increment)
            return
        stream = self._stream(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise PeerError(PROTOCOL_ERROR, b"WINDOW_UPDATE on an idle stream")
            return
        if stream.state == IDLE:
            raise PeerError(PROTOCOL_ERROR, b"WINDOW_UPDATE on an idle stream")
        if not increment:
            self._stream_error(stream_id, PROTOCOL_ERROR)
            return
        stream.send_window += increment
        if stream.send_window > WINDOW_MAX:
            self._stream_error(stream_id, FLOW_CONTROL_ERROR)
        elif stream.queued:
            self._resume(stream_id, stream)

    def _open_connection_window(self, increment: int) -> None:
        if not increment:
            raise PeerError(PROTOCOL_ERROR, b"WINDOW_UPDATE of 0")
        self._held_window += increment
        if self._send_window + self._held_window > WINDOW_MAX:
            raise PeerError(FLOW_CONTROL_ERROR, b"connection window over its maximum")
        self._open_window()
        for stream_id in self._feed_starved():
            self._events.append((events.DRAINED, stream_id))
