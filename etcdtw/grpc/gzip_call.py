"""Calls whose client compresses its messages: as `server_call`, with gzip in both directions."""

from __future__ import annotations

from typing import Final

from etcdtw.grpc.call import OK, StatusError
from etcdtw.grpc.gzip import HEAD, PlainGzip, compress
from etcdtw.grpc.inflating import Inflating
from etcdtw.grpc.intake import Intake
from etcdtw.grpc.message import MESSAGE_SIZE_MAX, PREFIX
from etcdtw.grpc.server_call import OK_BLOCK, CallRegister, ServerCall, StreamCall
from etcdtw.grpc.stats import MethodStats

ENCODING: Final = (b"grpc-encoding", b"gzip")


def framed(message: bytes) -> bytes:
    """Return ``message`` compressed, with its prefix; an empty one has nothing to compress."""
    if not message:
        return PREFIX.pack(0, 0)
    packed = compress(message)
    return PREFIX.pack(1, len(packed)) + packed


class GzipCall(ServerCall):
    """A unary call."""

    __slots__ = ("_inflating", "_plain")

    def __init__(
        self,
        register: CallRegister,
        stream_id: int,
        intake: Intake,
        stats: MethodStats,
        expires_ms: int,
        size_max: int = MESSAGE_SIZE_MAX,
    ) -> None:
        super().__init__(register, stream_id, intake, stats, expires_ms)
        self._plain: PlainGzip | None = None
        self._inflating = Inflating(size_max, self._inflated, self._inflated_all, self._broken)

    def reply(self, message: bytes) -> None:
        self._begin(len(message))
        register = self._end(OK)
        if register is not None:
            octets = framed(message)
            register.owe(len(octets))
            register.connection.send_data(self.stream_id, octets)
            register.connection.send_trailers(self.stream_id, OK_BLOCK)
            self._close(register)

    def begin_reply(self, size: int) -> None:
        self._begin(size)
        register = self._register
        if register is not None:
            self._plain = PlainGzip()
            head = PREFIX.pack(1, PlainGzip.size_of(size)) + HEAD
            register.connection.send_data(self.stream_id, head)
            register.mark()

    def continue_reply(self, part: bytes) -> None:
        if self._plain is not None:
            super().continue_reply(self._plain.add(part))

    def end_reply(self) -> None:
        if self._plain is not None:
            super().continue_reply(self._plain.end())
        super().end_reply()

    def _begin(self, size: int) -> None:
        register = self._register
        if register is not None:
            self.head_sent = True
            self._stats.sent += 1
            self._stats.sent_octets += size
            head = (*self._intake.head, ENCODING)
            register.connection.send_headers(self.stream_id, head)

    def held_now(self) -> int:
        return super().held_now() + self._inflating.held

    def _arrived(self, message: bytes) -> None:
        register = self._register
        if register is not None:
            self._inflating.add(message)
            register.stats.inflations.add(self._inflating)

    def _inflated(self, message: bytes) -> None:
        self.count_held()
        self._serve(message)

    def _inflated_all(self) -> None:
        """One message is all there is."""

    def _broken(self, error: StatusError) -> None:
        self.break_off(error.code, error.message)

    def _end(self, code: int) -> CallRegister | None:
        self._inflating.drop()
        return super()._end(code)


class GzipStreamCall(StreamCall):
    """A server-streaming or bidirectional call."""

    __slots__ = ("_inflating",)

    def __init__(
        self,
        register: CallRegister,
        stream_id: int,
        intake: Intake,
        stats: MethodStats,
        expires_ms: int,
        size_max: int = MESSAGE_SIZE_MAX,
    ) -> None:
        super().__init__(register, stream_id, intake, stats, expires_ms)
        self._inflating = Inflating(size_max, self._inflated, self._inflated_all, self._broken)

    def send(self, message: bytes) -> None:
        self._begin()
        self._send(framed(message), 1, len(message))

    def send_all(self, messages: list[bytes]) -> None:
        self._begin()
        octets = sum([len(message) for message in messages])
        self._send(b"".join([framed(message) for message in messages]), len(messages), octets)

    def _begin(self) -> None:
        register = self._register
        if register is not None and not self.head_sent:
            self.head_sent = True
            head = (*self._intake.head, ENCODING)
            register.connection.send_headers(self.stream_id, head)

    def held_now(self) -> int:
        return super().held_now() + self._inflating.held

    def _arrived(self, message: bytes) -> None:
        register = self._register
        if register is not None:
            self._inflating.add(message)
            register.stats.inflations.add(self._inflating)

    def _half_closed(self) -> None:
        register = self._register
        if register is not None:
            self._inflating.end()
            register.stats.inflations.add(self._inflating)

    def _inflated(self, message: bytes) -> None:
        self.count_held()
        super()._arrived(message)

    def _inflated_all(self) -> None:
        super()._half_closed()

    def _broken(self, error: StatusError) -> None:
        self.break_off(error.code, error.message)

    def _end(self, code: int) -> CallRegister | None:
        self._inflating.drop()
        return super()._end(code)
