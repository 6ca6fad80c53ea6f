"""A gRPC server and client back to back in memory, and raw requests by hand."""

from __future__ import annotations

from collections.abc import Callable

from etcdtw.grpc.call import Call, MethodTable, StatusError
from etcdtw.grpc.caller import Caller
from etcdtw.grpc.client import CallClient, ClientCall
from etcdtw.grpc.intake import Fields
from etcdtw.grpc.message import frame_message
from etcdtw.grpc.plain import PLAIN_BODY_SIZE_MAX, PlainRequest
from etcdtw.grpc.server import CallServer
from etcdtw.grpc.stats import MethodStats, ServerStats
from etcdtw.http2 import events
from etcdtw.http2.connection import Connection
from etcdtw.http2.limits import Limits

PREFIX = "/test.Svc/"


def request_fields(
    name: str = "Unary", *more: tuple[bytes, bytes], content_type: bytes = b"application/grpc"
) -> Fields:
    return (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", (PREFIX + name).encode()),
        (b":authority", b"test"),
        (b"content-type", content_type),
        (b"te", b"trailers"),
        *more,
    )


class Answer:
    """What came back on one stream."""

    def __init__(self) -> None:
        self.head: dict[bytes, bytes] = {}
        self.trailers: dict[bytes, bytes] = {}
        self.body = b""
        self.is_ended = False
        self.reset: int | None = None

    @property
    def status(self) -> tuple[int, str]:
        fields = self.trailers or self.head
        return int(fields[b"grpc-status"]), fields[b"grpc-message"].decode()


class ServerRig:
    """A `CallServer` driven by a client-side http2 core.

    The handlers keep their calls in ``calls`` and what arrived in ``seen``.
    """

    def __init__(
        self,
        *,
        message_size_max: int = 1000,
        client_window: int = 65_535,
        on_plain: Callable[[PlainRequest], None] | None = None,
        stats: ServerStats | None = None,
    ) -> None:
        self.calls: list[Call] = []
        self.seen: list[object] = []
        self.ended: list[int] = []
        self.marks = 0
        self.now_ms = 1_000
        self.stats = stats or ServerStats()
        self.methods = MethodTable()
        self.methods.add_unary(PREFIX + "Unary", self._echo)
        self.methods.add_unary(PREFIX + "Wait", self._wait)
        self.methods.add_unary(PREFIX + "Raise", self._raise)
        self.methods.add_unary(PREFIX + "Inside", self._inside)
        self.methods.add_server_stream(PREFIX + "Server", self._stream)
        self.methods.add_bidi_stream(PREFIX + "Bidi", self._stream)
        self.methods.add_bidi_stream(PREFIX + "Refuse", self._refuse)
        self.server_http2 = Connection()
        self.server_http2.begin()
        self.server = CallServer(
            self.server_http2,
            self.methods,
            self.stats,
            on_output=self._marked,
            on_plain=on_plain,
            message_size_max=message_size_max,
            body_size_max=lambda verb, target: PLAIN_BODY_SIZE_MAX,
            caller=Caller("10.0.0.7", "alice"),
        )
        self.client = Connection(client=True, limits=Limits(stream_window=client_window))
        self.client.begin()
        self.answers: dict[int, Answer] = {}
        self.client_events: list[events.Event] = []
        self.pump()

    def pump(self) -> None:
        """Carry octets both ways until there are none."""
        while self.server_http2.has_output or self.client.has_output:
            self.to_server()
            self.to_client()

    def to_server(self) -> None:
        self.server.receive(self.client.take_output(), self.now_ms)

    def to_client(self) -> None:
        for event in self.client.receive(self.server.take_output(), self.now_ms):
            self._note(event)

    def begin(self, name: str, *more: tuple[bytes, bytes], fields: Fields | None = None) -> int:
        """Open a stream and send its headers; return its id."""
        stream_id = self.client.open_stream()
        self.answers[stream_id] = Answer()
        self.client.send_headers(stream_id, fields or request_fields(name, *more))
        return stream_id

    def data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        self.client.send_data(stream_id, data, end_stream)
        self.pump()

    def request(self, name: str, message: bytes, *more: tuple[bytes, bytes]) -> Answer:
        """Send a whole request with one message and return what came back."""
        stream_id = self.begin(name, *more)
        self.data(stream_id, frame_message(message), True)
        return self.answers[stream_id]

    def counts(self, name: str) -> MethodStats:
        method = self.methods.find((PREFIX + name).encode())
        assert method is not None
        return self.stats.of(method)

    def _note(self, event: events.Event) -> None:
        self.client_events.append(event)
        if event[0] in (events.GOAWAY, events.CLOSED, events.PING_ACK):
            return
        answer = self.answers[event[1]]
        if event[0] == events.HEADERS:
            answer.head = dict(event[2].fields)
            answer.is_ended = event[3]
        elif event[0] == events.DATA:
            answer.body += event[2]
            answer.is_ended = event[3]
        elif event[0] == events.TRAILERS:
            answer.trailers = dict(event[2].fields)
            answer.is_ended = True
        elif event[0] == events.RESET:
            answer.reset = event[2]

    def _marked(self) -> None:
        self.marks += 1

    def _echo(self, call: Call, message: bytes) -> bytes:
        return message

    def _wait(self, call: Call, message: bytes) -> None:
        self.seen.append(message)
        self._keep(call)

    def _raise(self, call: Call, message: bytes) -> bytes:
        raise StatusError(5, message.decode())

    def _inside(self, call: Call, message: bytes) -> None:
        call.reply(message)

    def _stream(self, call: Call) -> None:
        call.on_message = self.seen.append
        call.on_half_close = lambda: self.seen.append("half-closed")
        call.on_drain = lambda: self.seen.append("drained")
        self._keep(call)

    def _refuse(self, call: Call) -> None:
        raise StatusError(16, "etcdserver: invalid auth token")

    def _keep(self, call: Call) -> None:
        position = len(self.calls)
        self.calls.append(call)
        call.on_end = lambda: self.ended.append(position)


class PlainRig(ServerRig):
    """A server whose other requests are kept."""

    def __init__(self, stats: ServerStats | None = None) -> None:
        self.plain: list[PlainRequest] = []
        super().__init__(on_plain=self.plain.append, stats=stats)

    def get(self, *more: tuple[bytes, bytes]) -> int:
        fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/health"), *more)
        stream_id = self.begin("", fields=fields)
        self.data(stream_id, b"", True)
        return stream_id

    def begin_plain(self, octets: int) -> int:
        """Begin a request and send so much of its body."""
        stream_id = self.begin("", fields=request_fields(content_type=b"text/plain"))
        self.data(stream_id, bytes(octets))
        return stream_id


class ClientRig:
    """A `CallClient` against a `ServerRig`'s server; ``done`` collects unary results."""

    def __init__(self) -> None:
        self.rig = ServerRig(message_size_max=100_000)
        self.done: list[tuple[bytes | None, int, str]] = []
        self.marks = 0
        self.client = CallClient(self.rig.client, on_output=self._marked)

    def pump(self) -> None:
        rig = self.rig
        while rig.server_http2.has_output or rig.client.has_output:
            rig.to_server()
            self.client.receive(rig.server.take_output(), 0)

    def unary(self, name: str, message: bytes, timeout_ms: int | None = None) -> ClientCall:
        call = self.client.unary(PREFIX + name, message, self._done, timeout_ms=timeout_ms)
        self.pump()
        return call

    def _done(self, response: bytes | None, code: int, text: str) -> None:
        self.done.append((response, code, text))

    def _marked(self) -> None:
        self.marks += 1
