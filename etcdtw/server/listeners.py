"""The client and metrics ports as a service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorCore,
    IReactorSocket,
)
from twisted.logger import Logger
from twisted.web.resource import IResource

from etcdtw.cluster.urls import MemberUrl
from etcdtw.gateway.pages import Access
from etcdtw.gateway.site import client_site, metrics_site
from etcdtw.grpc.call import MethodTable
from etcdtw.http2.limits import Limits
from etcdtw.server.certificate_watch import CertificateWatch
from etcdtw.server.descriptors import METRICS_MAX
from etcdtw.server.member import Member
from etcdtw.server.metric_sources import member_sources
from etcdtw.server.metrics import Scrape
from etcdtw.server.readiness import (
    CLIENT_SOCKET,
    adopted_endpoint,
    inherited_sockets,
    started_environment,
)
from etcdtw.server.tls_roles import client_policy
from etcdtw.transport.client_places import ClientPlaces
from etcdtw.transport.client_port import ClientPort, PortBounds, UnreadTotal
from etcdtw.transport.grpc_channel import KeepAlive
from etcdtw.transport.http1 import HttpSite
from etcdtw.transport.listener import listen_all, parse_listen_url
from etcdtw.transport.tls import TlsPolicy

DRAIN_S: Final = 7.0
"""How long a stop waits for calls under way."""
GRPC_OVERHEAD: Final = 512 * 1024
"""What a gRPC message may be larger than a request (etcd's number)."""


class Listeners(Service):
    """The client and metrics ports."""

    name = "listeners"
    log = Logger()

    def __init__(self, member: Member) -> None:
        self._member = member
        self._ports: list[IListeningPort] = []
        self._factories: list[ClientPort] = []
        self._certificates: CertificateWatch | None = None
        self._unread = UnreadTotal(member.call_stats)
        self._clients = ClientPlaces(member.shares.clients_max)
        self._scrapers = ClientPlaces(METRICS_MAX)
        self._is_quarantined = False

    def startService(self) -> Deferred[None]:
        super().startService()
        return Deferred.fromCoroutine(self._listen())

    async def _listen(self) -> None:
        member = self._member
        config = member.config
        access = Access(config.cors_origins, config.host_whitelist)
        policy, certificates = self._open_tls()
        scrape = Scrape(
            member_sources(
                member.node,
                member.opened,
                member.services,
                config,
                member.call_stats,
                member.health_counts,
                certificates,
                member.peers,
            ),
            member.call_stats,
        )
        site = HttpSite(
            cast(
                IResource,
                client_site(member, member.health_counts, member, scrape.render, access),
            ),
            member.clock,
        )
        split = bool(config.listen_client_http_urls)
        await self._open(config.listen_client_urls, None if split else site, True, policy)
        await self._open(config.listen_client_http_urls, site, False, policy)
        pages = metrics_site(member, member.health_counts, scrape.render)
        metrics = HttpSite(cast(IResource, pages), member.clock)
        await self._open(config.listen_metrics_urls, metrics, False, policy, self._scrapers)
        await self._adopt(site, metrics)
        member.node.ticks.follow(self._look)

    def _look(self, now_ms: int) -> None:
        """Drop all clients once this member's keys are known to differ: what they ask for anew
        is refused (`rpc.screening`)."""
        was_quarantined, self._is_quarantined = (
            self._is_quarantined,
            self._member.node.is_quarantined,
        )
        if self._is_quarantined and not was_quarantined:
            self.log.error(
                "this member's keys differ from the other members': it serves no keys, watches "
                "or leases while its CORRUPT alarm is raised; replace it (docs/guide/operate.md)"
            )
            for factory in self._factories:
                factory.drop_calls()

    def _open_tls(self) -> tuple[TlsPolicy | None, CertificateWatch]:
        """Read the certificates of all roles.  Raises `TlsError`."""
        member = self._member

        policy = client_policy(member.config, member.now())
        policies = (policy, member.peer_tls.listens, member.peer_tls.dials)
        found = [one for one in policies if one is not None]
        watch = CertificateWatch(member.clock, member.now, found)
        watch.start()
        self._certificates = watch
        return policy, watch

    def _factory(
        self, site: HttpSite | None, serves_calls: bool, is_tls: bool, places: ClientPlaces
    ) -> ClientPort:
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
            places=places,
            is_tls=is_tls,
        )
        self._factories.append(factory)
        return factory

    async def _open(
        self,
        urls: Sequence[MemberUrl],
        site: HttpSite | None,
        serves_calls: bool,
        policy: TlsPolicy | None,
        places: ClientPlaces | None = None,
    ) -> None:
        config = self._member.config
        for url in urls:
            listen_url = parse_listen_url(str(url))
            factory = self._factory(site, serves_calls, listen_url.is_tls, places or self._clients)
            reactor = cast(IReactorCore, self._member.reactor)
            self._ports += await listen_all(
                reactor, [listen_url], factory, policy, shares_port=config.socket_reuse_port
            )
            self.log.info("listening on {url}", url=str(url))

    async def _adopt(self, site: HttpSite, metrics: HttpSite) -> None:
        """Take over the sockets of systemd's socket units, beside the URLs."""
        reactor = cast(IReactorSocket, self._member.reactor)
        for name, descriptor in inherited_sockets(started_environment()).items():
            is_client = name == CLIENT_SOCKET
            served, places = (site, self._clients) if is_client else (metrics, self._scrapers)
            factory = self._factory(served, is_client, False, places)
            self._ports.append(await adopted_endpoint(reactor, descriptor).listen(factory))
            self.log.info("listening on systemd's socket {socket}", socket=name)

    def stopService(self) -> Deferred[Any]:
        """Stop listening, let calls under way end, drop the rest after `DRAIN_S`."""
        super().stopService()
        closing: list[Deferred[Any]] = [maybeDeferred(port.stopListening) for port in self._ports]
        closing += [factory.drain(DRAIN_S) for factory in self._factories]
        self._ports, self._factories = [], []
        if self._certificates is not None:
            self._certificates.stop()
        return DeferredList(closing)
