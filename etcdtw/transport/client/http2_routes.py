"""Lets HTTP/2 requests that are not gRPC reach the same routes as HTTP/1.x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import ITCPTransport

from etcdtw.grpc.plain import PlainRequest
from etcdtw.http1.answers import Fields
from etcdtw.http1.target import BadTargetError, split_target
from etcdtw.transport.client.seams import Successor

PIECES_QUEUED_MAX: Final = 65_536
"""Octets of an answer that wait for its client; with more its source waits."""


class Http2Request:
    """Implements `seams.HttpRequest` for a stream: what it says goes on to `PlainRequest`."""

    def __init__(
        self, plain: PlainRequest, connection: ITCPTransport, date: Callable[[], bytes]
    ) -> None:
        self._plain = plain
        self._date = date
        intake = plain.intake
        self._fields: dict[bytes, bytes] = {}
        for name, value in plain.fields:
            self._fields.setdefault(name, value)
        self.verb = intake.value(b":method") or b"GET"
        target = intake.value(b":path") or b"/"
        try:
            _, self.path, self.query = split_target(self.verb, target)
        except BadTargetError:
            self.path, self.query = target, b""
        self.body = plain.body  # bounded and counted as it came
        self.broken = ""
        self.connection = connection
        self.let_go = plain.let_go
        self.send = plain.send
        self.finish = plain.finish
        self.break_off = plain.break_off

    @property
    def on_end(self) -> Callable[[], None] | None:
        return self._plain.on_end

    @on_end.setter
    def on_end(self, told: Callable[[], None] | None) -> None:
        self._plain.on_end = told

    @property
    def on_drain(self) -> Callable[[], None] | None:
        return self._plain.on_drain

    @on_drain.setter
    def on_drain(self, told: Callable[[], None] | None) -> None:
        self._plain.on_drain = told

    @property
    def host(self) -> bytes:
        return self._plain.intake.value(b":authority") or self._fields.get(b"host", b"")

    @property
    def is_secure(self) -> bool:
        return hasattr(self.connection, "getPeerCertificate")

    @property
    def is_full(self) -> bool:
        return self._plain.queued > PIECES_QUEUED_MAX

    def header(self, name: bytes) -> bytes | None:
        return self._fields.get(name.lower())

    def respond(self, status: int, fields: Fields, body: bytes) -> None:
        length = (b"content-length", b"%d" % len(body))
        if self.verb == b"HEAD":
            body = b""
        self._plain.respond(status, (*self._dated(fields), length), body)

    def begin(self, status: int, fields: Fields) -> None:
        self._plain.begin(status, self._dated(fields))

    def take_over(self, successor: Successor, head: bytes) -> bool:
        return False

    def _dated(self, fields: Fields) -> Fields:
        """Return fields as HTTP/2 has them: names in lower case."""
        return (*((name.lower(), value) for name, value in fields), (b"date", self._date()))
