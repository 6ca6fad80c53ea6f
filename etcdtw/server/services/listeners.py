"""The client and metrics ports as services.

The metrics ports open before there is a quorum: probes ask there (kubeadm's do) while a member
still waits for the others.  `/livez` says that it lives, `/health` and `/readyz` that it cannot
serve yet.
"""

from __future__ import annotations

from typing import Any, Final, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorSocket
from twisted.logger import Logger
from twisted.web.resource import IResource

from etcdtw.gateway.pages import Access
from etcdtw.gateway.shared_page import SharedPage
from etcdtw.gateway.site import client_site, metrics_site
from etcdtw.grpc.call import MethodTable
from etcdtw.http2.limits import Limits
from etcdtw.server.doors.addresses import CLIENT, CLIENT_HTTP, METRICS
from etcdtw.server.doors.certificate_watch import CertificateWatch
from etcdtw.server.member.member import Member
from etcdtw.server.metrics.metrics import Scrape
from etcdtw.server.metrics.sources import member_sources
from etcdtw.server.process.descriptors import METRICS_MAX
from etcdtw.server.process.readiness import (
    CLIENT_SOCKET,
    METRICS_SOCKET,
    adopted_endpoint,
    inherited_sockets,
    started_environment,
)
from etcdtw.server.services.debug_variables import process_variables
from etcdtw.transport.client.grpc_channel import KeepAlive
from etcdtw.transport.client.http1 import HttpSite
from etcdtw.transport.client.places import ClientPlaces
from etcdtw.transport.client.port import ClientPort, PortBounds, UnreadTotal
from etcdtw.transport.listener import over_tls

DRAIN_S: Final = 7.0
"""How long a stop waits for calls under way."""
GRPC_OVERHEAD: Final = 512 * 1024
"""What a gRPC message may be larger than a request (etcd's number)."""


class Ports(Service):
    """Ports of a member: opened by their roles, drained when they stop."""

    log = Logger()
    roles: tuple[str, ...] = ()

    def __init__(self, member: Member, unread: UnreadTotal, places: ClientPlaces) -> None:
        self._member = member
        self._unread = unread
        self._places = places
        self._adopted: list[IListeningPort] = []
        self._factories: list[ClientPort] = []

    def _factory(self, site: HttpSite | None, serves_calls: bool, is_tls: bool) -> ClientPort:
        member = self._member
        config = member.config
        factory = ClientPort(
            member.clock,
            member.services.methods if serves_calls else MethodTable(),
            member.call_stats,
            member.flusher,
            site=site,
            limits=Limits(
                max_concurrent_streams=config.max_concurrent_streams,
                keepalive_min_ms=int(config.grpc_keepalive_min_time_s * 1000),
            ),
            bounds=PortBounds(message_size_max=config.max_request_bytes + GRPC_OVERHEAD),
            keepalive=KeepAlive(
                int(config.grpc_keepalive_interval_s * 1000),
                int(config.grpc_keepalive_timeout_s * 1000),
            ),
            unread=self._unread,
            places=self._places,
            pieces=member.pieces,
            rounds=member.rounds,
            offenders=member.offenders,
            is_tls=is_tls,
        )
        self._factories.append(factory)
        return factory

    def _open(self, role: str, site: HttpSite | None, serves_calls: bool) -> None:
        """Open this member's doors of one role."""
        member = self._member
        for door in member.doors.of(role):
            factory = self._factory(site, serves_calls, door.url.is_tls)
            door.open(over_tls(door.url, factory, member.client_tls, member.clock))
            self.log.info("listening on {url}", url=door.url.text)

    async def _adopt(self, name: str, site: HttpSite, serves_calls: bool) -> None:
        """Take over the socket of systemd's socket unit, beside the URLs."""
        descriptor = inherited_sockets(started_environment()).get(name)
        if descriptor is None:
            return
        reactor = cast(IReactorSocket, self._member.reactor)
        factory = self._factory(site, serves_calls, False)
        self._adopted.append(await adopted_endpoint(reactor, descriptor).listen(factory))
        self.log.info("listening on systemd's socket {socket}", socket=name)

    def stopService(self) -> Deferred[Any]:
        """Stop listening, let calls under way end, drop the rest after `DRAIN_S`."""
        super().stopService()
        closing = [self._member.doors.close(*self.roles)]
        closing += [maybeDeferred(port.stopListening) for port in self._adopted]
        closing += [factory.drain(DRAIN_S) for factory in self._factories]
        self._adopted, self._factories = [], []
        return DeferredList(closing)


class MetricsListeners(Ports):
    """The metrics ports, and what is measured of a member."""

    name = "metrics listeners"
    roles = (METRICS,)

    def __init__(self, member: Member, unread: UnreadTotal) -> None:
        super().__init__(member, unread, ClientPlaces(METRICS_MAX))

    def startService(self) -> Deferred[None]:
        super().startService()
        return Deferred.fromCoroutine(self._listen())

    async def _listen(self) -> None:
        member = self._member
        policies = (member.client_tls, member.peer_tls.listens, member.peer_tls.dials)
        found = [one for one in policies if one is not None]
        self._certificates = CertificateWatch(member.clock, member.now, found)
        self._certificates.start()
        scrape = Scrape(
            member_sources(
                member.node,
                member.opened,
                member.services,
                member.config,
                member.call_stats,
                member.health_counts,
                self._certificates,
                member.peers,
                room=member.room,
            ),
            member.call_stats,
        )
        self.metrics = SharedPage(
            scrape.render, member.clock.seconds, lambda passed: member.clock.callLater(0, passed)
        )
        pages = metrics_site(member, member.health_counts, self.metrics.body)
        site = HttpSite(cast(IResource, pages), member.clock)
        self._open(METRICS, site, False)
        await self._adopt(METRICS_SOCKET, site, False)

    def stopService(self) -> Deferred[Any]:
        self._certificates.stop()
        return super().stopService()


class Listeners(Ports):
    """The client ports."""

    name = "listeners"
    roles = (CLIENT, CLIENT_HTTP)

    def __init__(self, member: Member, unread: UnreadTotal, measured: MetricsListeners) -> None:
        super().__init__(member, unread, ClientPlaces(member.shares.clients_max))
        self._measured = measured
        self._is_quarantined = False

    def startService(self) -> Deferred[None]:
        super().startService()
        return Deferred.fromCoroutine(self._listen())

    async def _listen(self) -> None:
        member = self._member
        config = member.config
        access = Access(config.cors_origins, config.host_whitelist)
        pages = client_site(
            member,
            member.health_counts,
            member,
            self._measured.metrics.body,
            access,
            lambda: process_variables(member.node.raft_status()),
        )
        site = HttpSite(cast(IResource, pages), member.clock)
        split = bool(config.listen_client_http_urls)
        self._open(CLIENT, None if split else site, True)
        self._open(CLIENT_HTTP, site, False)
        await self._adopt(CLIENT_SOCKET, site, True)
        member.node.ticks.follow(self._look)

    def _look(self, now_ms: int) -> None:
        """Drop all clients once this member's keys are known to differ: what they ask for anew
        is refused (`rpc.screening`)."""
        was_quarantined, self._is_quarantined = (
            self._is_quarantined,
            self._member.node.is_quarantined,
        )
        if self._is_quarantined and not was_quarantined:
            if not self._member.node.standing.damage:  # that was said already
                self.log.error(
                    "this member's keys differ from the other members': it serves no keys, "
                    "watches or leases while its CORRUPT alarm is raised; replace it "
                    "(docs/guide/operate.md)"
                )
            for factory in self._factories:
                factory.drop_calls()
