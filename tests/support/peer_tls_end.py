"""One end of TLS between members as a process, for tests against real etcd.

``python -m tests.support.peer_tls_end listen PORT FLAG...`` prints the first line of what each
peer says, and the log; ``... dial HOST PORT FLAG...`` prints the status line of GET /version
or the fault.  The flags are a member's.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import cast

from twisted.internet import reactor as installed_reactor
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IReactorCore, IReactorThreads, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.config.config import configure
from etcdtw.server.doors.tls_roles import peer_roles
from etcdtw.transport.listener import listen, parse_listen_url
from etcdtw.transport.name_lookup import SystemLookup


def say(line: str) -> None:
    print(line, flush=True)


class FirstLine(LineReceiver):
    """Prints the first line that it hears; says ``greeting`` before."""

    def __init__(self, greeting: bytes, *, is_last: bool) -> None:
        self._greeting = greeting
        self._is_last = is_last

    def connectionMade(self) -> None:
        if self._greeting and self.transport is not None:
            self.transport.write(self._greeting)

    def lineReceived(self, line: bytes) -> None:
        say(line.decode())
        if self.transport is not None:
            self.transport.loseConnection()
        self.setRawMode()

    def rawDataReceived(self, data: bytes) -> None:
        """The first line is enough."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._is_last:
            stop()


@implementer(ILogObserver)
def observe(event: LogEvent) -> None:
    if "remote-addr" in event:  # somebody was turned away
        say(f"{formatEvent(event)} from {event['remote-addr']}: {event['error']}")
        return
    say(formatEvent(event))


def stop() -> None:
    cast(IReactorCore, installed_reactor).stop()


def refused(failure: Failure) -> None:
    say(failure.getErrorMessage())
    stop()


def main() -> None:
    reactor = cast(IReactorCore, installed_reactor)
    clock = cast(IReactorTime, reactor)
    lookup = SystemLookup(cast(IReactorThreads, reactor))
    role, *words = sys.argv[1:]
    if role == "listen":
        port, *flags = words
        config = configure(flags, {}, lambda path: b"")
        roles = peer_roles(config, clock, datetime.now(UTC), lookup)
        factory = Factory.forProtocol(lambda: FirstLine(b"", is_last=False))
        url = parse_listen_url(f"https://127.0.0.1:{port}")
        globalLogPublisher.addObserver(observe)
        listen(reactor, url, factory, roles.listens)
        say("ready")
    else:
        host, port, *flags = words
        config = configure(flags, {}, lambda path: b"")
        roles = peer_roles(config, clock, datetime.now(UTC), lookup)
        request = f"GET /version HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        factory = Factory.forProtocol(lambda: FirstLine(request, is_last=True))
        endpoint = HostnameEndpoint(reactor, host, int(port))
        dialled = roles.dials.wrap(endpoint, host).connect(factory)
        dialled.addErrback(refused)
    reactor.run()


if __name__ == "__main__":
    main()
