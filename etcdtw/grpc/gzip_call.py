"""Calls whose client compresses its messages are answered in the same form.

What they are asked is inflated in turns: `inflating`.
"""

from __future__ import annotations

from etcdtw.grpc.call import OK
from etcdtw.grpc.gzip import HEAD, Part, PlainGzip, compressed
from etcdtw.grpc.intake import Intake
from etcdtw.grpc.message import PREFIX
from etcdtw.grpc.server_call import OK_BLOCK, CallRegister, ServerCall, StreamCall
from etcdtw.grpc.stats import MethodStats


def framed(message: bytes) -> list[Part]:
    """Return the parts of ``message``, compressed, behind its prefix.

    An empty one has nothing to compress.
    """
    if not message:
        return [PREFIX.pack(0, 0)]
    parts = compressed(message)
    return [PREFIX.pack(1, sum([len(part) for part in parts])), *parts]


class GzipCall(ServerCall):
    """A unary call."""

    __slots__ = ("_plain",)

    def __init__(
        self,
        register: CallRegister,
        stream_id: int,
        intake: Intake,
        stats: MethodStats,
        expires_ms: int,
    ) -> None:
        super().__init__(register, stream_id, intake, stats, expires_ms)
        self._plain: PlainGzip | None = None

    def reply(self, message: bytes) -> None:
        register = self._end(OK)
        if register is None:
            return
        self._stats.sent += 1
        self._stats.sent_octets += len(message)
        octets = b"".join(framed(message))
        register.owe(len(octets))
        head_block = self._intake.head_block
        register.connection.reply(self.stream_id, head_block, octets, OK_BLOCK)
        self._close(register)

    def begin_reply(self, size: int) -> None:
        register = self._register
        if register is not None:
            self._plain = PlainGzip()
            self._begin(size, PREFIX.pack(1, PlainGzip.size_of(size)) + HEAD)

    def continue_reply(self, part: bytes) -> None:
        if self._plain is not None:
            super().continue_reply(self._plain.add(part))

    def end_reply(self) -> None:
        if self._plain is not None:
            super().continue_reply(self._plain.end())
        super().end_reply()


class GzipStreamCall(StreamCall):
    """A server-streaming or bidirectional call."""

    __slots__ = ()

    def send(self, message: bytes) -> None:
        self._send([b"".join(framed(message))], 1, len(message))

    def send_parts(self, parts: list[bytes]) -> None:
        self.send(b"".join(parts))

    def send_all(self, messages: list[bytes]) -> None:
        parts = [part for message in messages for part in framed(message)]
        octets = sum([len(message) for message in messages])
        self._send([b"".join(parts)], len(messages), octets)
