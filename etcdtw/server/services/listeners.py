"""The client and metrics ports as services.

The metrics ports open before there is a quorum: probes ask there (kubeadm's do) while a member
still waits for the others.  `/livez` says that it lives, `/health` and `/readyz` that it cannot
serve yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IReactorSocket
from twisted.logger import Logger

from etcdtw.config.config import Config
from etcdtw.gateway.pages import Pages
from etcdtw.grpc.call import MethodTable
from etcdtw.grpc.stats import ServerStats
from etcdtw.http2.limits import Limits
from etcdtw.node.loop.ticks import Ticks
from etcdtw.node.standing import Standing
from etcdtw.server.doors.addresses import CLIENT, CLIENT_HTTP, METRICS, Doors
from etcdtw.server.doors.certificate_watch import CertificateWatch
from etcdtw.server.member.runtime import Runtime
from etcdtw.server.process.descriptors import METRICS_MAX
from etcdtw.server.process.readiness import (
    CLIENT_SOCKET,
    METRICS_SOCKET,
    adopted_endpoint,
    inherited_sockets,
    started_environment,
)
from etcdtw.transport.client.grpc_channel import KeepAlive
from etcdtw.transport.client.http1_site import HttpSite
from etcdtw.transport.client.offenders import Offenders
from etcdtw.transport.client.places import ClientPlaces
from etcdtw.transport.client.port import ClientPort, PortBounds, UnreadTotal
from etcdtw.transport.either import EitherFactory
from etcdtw.transport.listener import over_tls
from etcdtw.transport.tls.policy import TlsPolicy

DRAIN_S: Final = 7.0
"""How long a stop waits for calls under way."""
GRPC_OVERHEAD: Final = 512 * 1024
"""What a gRPC message may be larger than a request (etcd's number)."""


@dataclass(frozen=True, kw_only=True)
class ClientSide:
    """What all ports for clients share: where they stand, how they take turns, what they grant."""

    runtime: Runtime
    doors: Doors
    tls: TlsPolicy | None
    calls: ServerStats
    unread: UnreadTotal
    offenders: Offenders
    limits: Limits
    bounds: PortBounds
    keepalive: KeepAlive

    def port(
        self, methods: MethodTable, site: HttpSite | None, places: ClientPlaces, *, is_tls: bool
    ) -> ClientPort:
        """Return a port that answers ``methods`` and ``site``, to as many as find ``places``."""
        runtime = self.runtime
        return ClientPort(
            runtime.clock,
            methods,
            self.calls,
            runtime.flusher,
            site=site,
            limits=self.limits,
            bounds=self.bounds,
            keepalive=self.keepalive,
            unread=self.unread,
            places=places,
            pieces=runtime.pieces,
            rounds=runtime.rounds,
            offenders=self.offenders,
            is_tls=is_tls,
        )

    def http(self, pages: Pages) -> HttpSite:
        runtime = self.runtime
        return HttpSite(
            pages,
            runtime.clock,
            body_size_max=pages.body_size_max,
            stats=self.calls,
            unix_s=runtime.unix_s,
        )


def client_side(
    runtime: Runtime, config: Config, doors: Doors, tls: TlsPolicy | None, calls: ServerStats
) -> ClientSide:
    """Return what the flags grant to clients."""
    return ClientSide(
        runtime=runtime,
        doors=doors,
        tls=tls,
        calls=calls,
        unread=UnreadTotal(calls),
        offenders=Offenders(),
        limits=Limits(
            max_concurrent_streams=config.max_concurrent_streams,
            keepalive_min_ms=int(config.grpc_keepalive_min_time_s * 1000),
        ),
        bounds=PortBounds(message_size_max=config.max_request_bytes + GRPC_OVERHEAD),
        keepalive=KeepAlive(
            int(config.grpc_keepalive_interval_s * 1000),
            int(config.grpc_keepalive_timeout_s * 1000),
        ),
    )


class Ports(Service):
    """Ports of a member: opened by their roles, drained when they stop."""

    log = Logger()
    roles: tuple[str, ...] = ()

    def __init__(self, side: ClientSide, methods: MethodTable, places: ClientPlaces) -> None:
        """``methods``: the calls that are served where calls are."""
        self._side = side
        self._methods = methods
        self._places = places
        self._adopted: list[IListeningPort] = []
        self._factories: list[ClientPort] = []

    def _factory(self, site: HttpSite | None, serves_calls: bool, is_tls: bool) -> ClientPort:
        methods = self._methods if serves_calls else MethodTable()
        factory = self._side.port(methods, site, self._places, is_tls=is_tls)
        self._factories.append(factory)
        return factory

    def _open(self, role: str, site: HttpSite | None, serves_calls: bool) -> None:
        """Open this member's doors of one role."""
        side = self._side
        for door in side.doors.of(role):
            clock = side.runtime.clock
            factory = self._factory(site, serves_calls, door.url.is_tls)
            serving = over_tls(door.url, factory, side.tls, clock)
            if door.url.is_mixed:
                plain = self._factory(site, serves_calls, False)
                serving = EitherFactory(cast(IProtocolFactory, plain), serving, clock)
            door.open(serving)
            self.log.info("listening on {url}", url=door.url.text)

    async def _adopt(self, name: str, site: HttpSite, serves_calls: bool) -> None:
        """Take over the socket of systemd's socket unit, beside the URLs."""
        descriptor = inherited_sockets(started_environment()).get(name)
        if descriptor is None:
            return
        reactor = cast(IReactorSocket, self._side.runtime.reactor)
        factory = self._factory(site, serves_calls, False)
        self._adopted.append(await adopted_endpoint(reactor, descriptor).listen(factory))
        self.log.info("listening on systemd's socket {socket}", socket=name)

    def stopService(self) -> Deferred[Any]:
        """Stop listening, let calls under way end, drop the rest after `DRAIN_S`."""
        super().stopService()
        closing = [self._side.doors.close(*self.roles)]
        closing += [maybeDeferred(port.stopListening) for port in self._adopted]
        closing += [factory.drain(DRAIN_S) for factory in self._factories]
        self._adopted, self._factories = [], []
        return DeferredList(closing)


class MetricsListeners(Ports):
    """The metrics ports; certificates are looked after from here on."""

    name = "metrics listeners"
    roles = (METRICS,)

    def __init__(self, side: ClientSide, pages: Pages, certificates: CertificateWatch) -> None:
        super().__init__(side, MethodTable(), ClientPlaces(METRICS_MAX))
        self._pages = pages
        self._certificates = certificates

    def startService(self) -> Deferred[None]:
        super().startService()
        return Deferred.fromCoroutine(self._listen())

    async def _listen(self) -> None:
        self._certificates.start()
        site = self._side.http(self._pages)
        self._open(METRICS, site, False)
        await self._adopt(METRICS_SOCKET, site, False)

    def stopService(self) -> Deferred[Any]:
        self._certificates.stop()
        return super().stopService()


class Listeners(Ports):
    """The client ports."""

    name = "listeners"
    roles = (CLIENT, CLIENT_HTTP)

    def __init__(
        self,
        side: ClientSide,
        methods: MethodTable,
        places: ClientPlaces,
        pages: Pages,
        standing: Standing,
        ticks: Ticks,
    ) -> None:
        super().__init__(side, methods, places)
        self._pages = pages
        self._standing = standing
        self._ticks = ticks
        self._is_quarantined = False

    def startService(self) -> Deferred[None]:
        super().startService()
        return Deferred.fromCoroutine(self._listen())

    async def _listen(self) -> None:
        site = self._side.http(self._pages)
        has_http_doors = bool(self._side.doors.of(CLIENT_HTTP))
        self._open(CLIENT, None if has_http_doors else site, True)
        self._open(CLIENT_HTTP, site, False)
        await self._adopt(CLIENT_SOCKET, site, True)
        self._ticks.follow(self._look)

    def _look(self, now_ms: int) -> None:
        """Drop all clients once this member's keys are known to differ: what they ask for anew
        is refused (`rpc.screening`)."""
        was_quarantined, self._is_quarantined = (
            self._is_quarantined,
            self._standing.is_quarantined,
        )
        if self._is_quarantined and not was_quarantined:
            if not self._standing.damage:  # that was said already
                self.log.error(
                    "this member's keys differ from the other members': it serves no keys, "
                    "watches or leases while its CORRUPT alarm is raised; replace it "
                    "(docs/guide/operate.md)"
                )
            for factory in self._factories:
                factory.drop_calls()
