"""A member's addresses: taken before anything is written, opened when somebody stands behind.

    bound  --Doors start-->  refusing  --open-->  served  --close-->  closed

A member that cannot have one of its addresses must not found, join or publish anything: the
others would count on one that nobody can reach.  Whoever connects before a door is open is sent
away at once and tries again, or another member, sooner than one that is kept waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorCore,
)
from twisted.internet.protocol import Factory

from etcdtw.cluster.urls import MemberUrl
from etcdtw.config.config import Config
from etcdtw.server.doors.taken import Taken
from etcdtw.transport.listener import (
    Bound,
    ListenUrl,
    bind_all,
    merge_listen_urls,
    parse_listen_url,
)

PEER: Final = "peer"
CLIENT: Final = "client"
CLIENT_HTTP: Final = "client-http"
METRICS: Final = "metrics"


def bind_addresses(config: Config) -> dict[str, list[Bound]]:
    """Take all of a member's addresses or none, by role; needs no reactor.

    Raises `ListenError`.
    """
    wanted: dict[str, Sequence[MemberUrl]] = {
        PEER: config.listen_peer_urls,
        CLIENT: config.listen_client_urls,
        CLIENT_HTTP: config.listen_client_http_urls,
        METRICS: config.listen_metrics_urls,
    }
    parsed = {role: [parse_listen_url(str(url)) for url in urls] for role, urls in wanted.items()}
    for role in (CLIENT, CLIENT_HTTP):  # may be spoken to with TLS and without, as etcd's
        parsed[role] = merge_listen_urls(parsed[role])
    every = [url for urls in parsed.values() for url in urls]
    taken = iter(bind_all(every, shares_port=config.socket_reuse_port))
    return {role: [next(taken) for _ in urls] for role, urls in parsed.items()}


class Door(Factory):
    """One address.  Whoever comes before it is open is sent away."""

    noisy = False

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._behind: IProtocolFactory | None = None
        self._port: IListeningPort | None = None

    @property
    def url(self) -> ListenUrl:
        return self._bound.url

    def take_up(self, reactor: IReactorCore) -> None:
        """Accept connections from now on, to refuse them."""
        self._port = self._bound.serve(reactor, self)

    def open(self, factory: IProtocolFactory) -> None:
        """Let ``factory`` answer from now on."""
        self._behind = factory
        factory.doStart()

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:  # type: ignore[override]
        return None if self._behind is None else self._behind.buildProtocol(addr)

    def close(self) -> Deferred[Any]:
        """Take no more connections; what is open stays.  Closing twice does nothing."""
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        closing = maybeDeferred(port.stopListening)
        behind, self._behind = self._behind, None
        if behind is not None:
            behind.doStop()
        return closing


class Doors(Service):
    """All of a member's addresses; the first service to start, and the last to stop."""

    name = "doors"

    def __init__(self, reactor: object, take: Callable[[], Taken]) -> None:
        """``take`` gives the addresses; raises what a start that cannot be has to say."""
        self._reactor = cast(IReactorCore, reactor)
        self._take = take
        self._doors: dict[str, list[Door]] = {}

    def of(self, role: str) -> Sequence[Door]:
        """Return the doors of one role, in the order of its URLs."""
        return self._doors.get(role, ())

    def startService(self) -> Deferred[Taken]:
        """Give what was taken, the addresses among it."""
        super().startService()
        taken = self._take()
        for role, bound in taken.bound.items():
            self._doors[role] = [Door(one) for one in bound]
            for door in self._doors[role]:
                door.take_up(self._reactor)
        return succeed(taken)

    def close(self, *roles: str) -> Deferred[Any]:
        """Let nobody new in at the doors of these roles."""
        return DeferredList([door.close() for role in roles for door in self.of(role)])

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        return self.close(*self._doors)
