"""A small gRPC server for tests: ``python -m tests.transport.echo_server URL [CERT KEY [CA]]``.

Prints ``ready`` when it listens.  Methods of ``test.Echo``: Unary returns the request, Later
answers after 10 ms, Never does not answer, Fail ends with NOT_FOUND and the request as text,
Repeat streams the request ten times, Chat answers each message, Flood never stops sending.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from etcdtw.grpc.call import NOT_FOUND, Call, MethodTable, StatusError
from etcdtw.grpc.stats import ServerStats
from etcdtw.transport.client.http1 import BODY_SIZE_MAX
from etcdtw.transport.client.http1_site import HttpSite
from etcdtw.transport.client.port import ClientPort
from etcdtw.transport.client.seams import HttpRequest
from etcdtw.transport.flusher import Flusher
from etcdtw.transport.listener import listen, parse_listen_url
from etcdtw.transport.tls.policy import TlsFiles, TlsPolicy

CHUNK = b"x" * 32768


class Echo:
    """The service."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def methods(self) -> MethodTable:
        table = MethodTable()
        table.add_unary("/test.Echo/Unary", lambda call, message: message)
        table.add_unary("/test.Echo/Later", self._later)
        table.add_unary("/test.Echo/Never", lambda call, message: None)
        table.add_unary("/test.Echo/Fail", self._fail)
        table.add_server_stream("/test.Echo/Repeat", self._repeat)
        table.add_bidi_stream("/test.Echo/Chat", self._chat)
        table.add_server_stream("/test.Echo/Flood", self._flood)
        return table

    def _later(self, call: Call, message: bytes) -> None:
        self._clock.callLater(0.01, call.reply, message)

    def _fail(self, call: Call, message: bytes) -> None:
        raise StatusError(NOT_FOUND, message.decode())

    def _repeat(self, call: Call) -> None:
        def message_came(message: bytes) -> None:
            for _ in range(10):
                call.send(message)
            call.finish()

        call.on_message = message_came

    def _chat(self, call: Call) -> None:
        call.on_message = call.send
        call.on_half_close = call.finish

    def _flood(self, call: Call) -> None:
        def pump() -> None:
            while call.is_open and not call.queued:
                call.send(CHUNK)

        call.on_message = lambda message: pump()
        call.on_drain = pump


class Health:
    """Answers GET /health like etcd, POST /health with the body, and others when told to."""

    def __init__(self) -> None:
        self.held: list[HttpRequest] = []

    def serve(self, request: HttpRequest) -> None:
        if request.path != b"/health":
            self.held.append(request)
            return
        body = b'{"health":"true","reason":""}'
        fields = ((b"Content-Type", b"application/json"),)
        request.respond(200, fields, request.body if request.verb == b"POST" else body)


def build_site(clock: IReactorTime, stats: ServerStats | None = None) -> HttpSite:
    return HttpSite(
        Health(),
        clock,
        body_size_max=lambda verb, target: BODY_SIZE_MAX,
        stats=stats,
        unix_s=clock.seconds,
    )


async def serve(arguments: list[str]) -> None:
    reactor = installed_reactor
    url = parse_listen_url(arguments[0])
    policy = None
    if len(arguments) > 1:
        ca = arguments[3] if len(arguments) > 3 else None
        policy = TlsPolicy(
            TlsFiles(cert_file=arguments[1], key_file=arguments[2], trusted_ca_file=ca)
        )
    clock: IReactorTime = reactor
    port = ClientPort(
        clock,
        Echo(clock).methods(),
        ServerStats(),
        Flusher(clock),
        site=build_site(clock),
        is_tls=url.is_tls,
    )
    listen(reactor, url, port, policy)
    print("ready", flush=True)


def failed(failure: Failure) -> None:
    print(failure, file=sys.stderr)
    installed_reactor.stop()


def begin() -> None:
    Deferred.fromCoroutine(serve(sys.argv[1:])).addErrback(failed)


def main() -> None:
    installed_reactor.callWhenRunning(begin)
    installed_reactor.run()


if __name__ == "__main__":
    main()
