"""One member as services, in the order they start.

    Storage     opens the data directory and builds the node on it
    Consensus   ticks; waits until this member leads and has published itself
    Listeners   client and metrics ports
    Readiness   says that clients may come

They stop the other way round: clients are let go first, the data is closed last.
"""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, DeferredList, execute, maybeDeferred
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorCore,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorSocket,
    IReactorTime,
)
from twisted.logger import Logger
from twisted.web.resource import IResource

from etcdtw import __version__
from etcdtw.apply.alarms import NAMES as ALARM_NAMES
from etcdtw.apply.applier import FIELD_CLUSTER_VERSION_SET, FIELD_MEMBER_ATTR_SET
from etcdtw.cluster.ids import id_text
from etcdtw.cluster.urls import MemberUrl
from etcdtw.gateway.health import HealthCounts
from etcdtw.gateway.pages import Access
from etcdtw.gateway.site import client_site, metrics_site
from etcdtw.grpc.call import MethodTable
from etcdtw.grpc.stats import ServerStats
from etcdtw.http2.limits import Limits
from etcdtw.node.node import NoCall, Node
from etcdtw.rpc.errors import status_of
from etcdtw.rpc.maintenance import MaintenanceService
from etcdtw.server.assembly import build_methods, build_node, server_version
from etcdtw.server.config import ClientTls, Config
from etcdtw.server.data import Data, open_data
from etcdtw.server.metric_sources import member_sources
from etcdtw.server.metrics import Scrape
from etcdtw.server.readiness import (
    CLIENT_SOCKET,
    METRICS_SOCKET,
    adopted_endpoint,
    inherited_sockets,
    notify,
    started_environment,
)
from etcdtw.server.tls_names import openssl_ciphers
from etcdtw.storage.failure import stop_process
from etcdtw.storage.state_process import ProcessStateWriter
from etcdtw.storage.state_worker import Pace
from etcdtw.transport.client_port import ClientPort, PortBounds, UnreadTotal
from etcdtw.transport.flusher import Flusher
from etcdtw.transport.grpc_channel import KeepAlive
from etcdtw.transport.http1 import HttpSite
from etcdtw.transport.listener import listen_all, parse_listen_url
from etcdtw.transport.tls import TlsFiles, TlsPolicy
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import membershippb

DRAIN_S: Final = 7.0
"""How long a stop waits for calls under way."""
FLUSH_S: Final = 15.0
"""How long a stop waits for the state's writer.  The log holds everything, so nothing is lost
by not waiting longer."""
WRITER_SILENT: Final = "the state's writer does not answer"
LEAD_POLL_S: Final = 0.01
SWITCH_INTERVAL_S: Final = 0.0005
"""How long the log's thread waits for a busy reactor at the most, before and after a commit."""
COLLECTOR_THRESHOLDS: Final = (50_000, 20, 50)
"""Requests in flight are many short-lived objects without cycles; with Python's own thresholds
looking for cycles among them takes a seventh of the reactor's time (measured)."""
READ_ONE: Final = pb.RangeRequest(key=b"\0", range_end=b"\0", limit=1, keys_only=True)
"""What a health check reads: the first key, whichever it is."""
GRPC_OVERHEAD: Final = 512 * 1024
"""What a gRPC message may be larger than a request (etcd's number)."""


class Member:
    """What the services of one member share; the storage fills it in."""

    def __init__(self, reactor: Any, config: Config, unix_ms: Callable[[], int]) -> None:
        self.reactor = reactor
        self.clock: IReactorTime = reactor
        self.config = config
        self.unix_ms = unix_ms
        self.flusher = Flusher(reactor)
        self.random = random.Random()
        self.call_stats = ServerStats()
        self.health_counts = HealthCounts()
        self.data: Data | None = None
        self._node: Node | None = None
        self._methods: MethodTable | None = None
        self._maintenance: MaintenanceService | None = None

    @property
    def node(self) -> Node:
        assert self._node is not None, "storage was not opened"
        return self._node

    @property
    def methods(self) -> MethodTable:
        assert self._methods is not None, "storage was not opened"
        return self._methods

    @property
    def opened(self) -> Data:
        assert self.data is not None, "storage was not opened"
        return self.data

    @property
    def maintenance(self) -> MaintenanceService:
        assert self._maintenance is not None, "storage was not opened"
        return self._maintenance

    def open(self) -> None:
        """Open the data and build the node."""
        reactor = self.reactor
        config = self.config
        pace = Pace(config.compaction_batch_limit, config.compaction_sleep_interval_s)

        def make_writer(path: Path, map_size: int, lock_fd: int) -> ProcessStateWriter:
            return ProcessStateWriter(cast(IReactorFDSet, reactor), path, map_size, lock_fd, pace)

        self.data = open_data(
            self.config,
            self.clock.seconds,
            cast(IReactorFromThreads, reactor).callFromThread,
            make_writer,
        )
        self._node = build_node(
            self.clock, self.config, self.data, self.flusher, self.random, self.unix_ms()
        )
        self._maintenance = MaintenanceService(
            self._node, self.server_version, self.config.quota_backend_bytes or 0
        )
        self._methods = build_methods(
            self._node, self.config, self.data, self.random, self._maintenance
        )
        self.call_stats.prepare(self._methods)

    # What the gateway asks.

    @property
    def has_leader(self) -> bool:
        return self.node.leader_id != 0

    @property
    def is_learner(self) -> bool:
        member = self.node.members.member(self.node.member_id)
        return member is not None and member.is_learner

    @property
    def alarms(self) -> Sequence[str]:
        return [ALARM_NAMES[alarm] for _, alarm in self.node.alarms.active()]

    def read(self, linearizable: bool) -> Deferred[None]:
        """Try a read; fails with the error that a client would see."""
        if not linearizable:
            return execute(self._read_one)
        done: Deferred[None] = Deferred(lambda _: None)

        def answer(_call: object, error: Exception | None) -> None:
            if done.called:
                return
            if error is None:
                execute(self._read_one).chainDeferred(done)
            else:
                done.errback(ReadFailedError(status_of(error)[1]))

        self.node.read(NoCall(), answer)
        return done

    def _read_one(self) -> None:
        """Read from the state, disk included, what any client could read."""
        self.node.store.range(READ_ONE)

    @property
    def server_version(self) -> str:
        return server_version(self.config)

    @property
    def cluster_version(self) -> str | None:
        return self.node.members.cluster_version or None

    @property
    def storage_version(self) -> str | None:
        return self.node.members.storage_version or None

    @property
    def product_version(self) -> str:
        return __version__


class ReadFailedError(Exception):
    """A health read failed; its text is what a client would see."""


class Storage(Service):
    """The open data directory."""

    name = "storage"

    def __init__(self, member: Member) -> None:
        self._member = member

    def startService(self) -> None:
        super().startService()
        self._member.open()

    def stopService(self) -> Deferred[None] | None:
        """Bring everything applied to the disk, then let go of it."""
        super().stopService()
        data = self._member.data
        if data is None:
            return None
        flushed: Deferred[None] = Deferred()
        overdue = self._member.clock.callLater(FLUSH_S, stop_process, WRITER_SILENT)
        data.state.flush(lambda: flushed.callback(None))
        flushed.addBoth(lambda _: overdue.cancel())
        flushed.addBoth(lambda _: data.close())
        return flushed


class Consensus(Service):
    """The ticking node."""

    name = "consensus"
    log = Logger()

    def __init__(self, member: Member) -> None:
        self._member = member
        self._is_published: Deferred[None] | None = None

    def startService(self) -> Deferred[None]:
        """Start; the result fires when the cluster knows this member's name and URLs."""
        super().startService()
        node = self._member.node
        self.log.info(
            "starting member {member} of cluster {cluster} at applied index {applied}",
            member=id_text(node.member_id),
            cluster=id_text(node.cluster_id),
            applied=node.applied_index,
        )
        self._is_published = Deferred(lambda _: None)
        node.on_lead = self._publish
        node.start()
        return self._is_published

    def _publish(self) -> None:
        """Tell the cluster who leads it, and settle its version."""
        node = self._member.node
        config = self._member.config
        request = membershippb.ClusterMemberAttrSetRequest(
            member_ID=node.member_id,
            member_attributes=membershippb.Attributes(
                name=config.name, client_urls=[str(url) for url in config.advertise_client_urls]
            ),
        )
        node.propose_own(FIELD_MEMBER_ATTR_SET, request)
        if not node.members.cluster_version:
            line = membershippb.ClusterVersionSetRequest(ver=f"{config.compat_version}.0")
            node.propose_own(FIELD_CLUSTER_VERSION_SET, line)
        self._await_published()

    def _await_published(self) -> None:
        member = self._member.node.members.member(self._member.node.member_id)
        waiting = self._is_published
        if waiting is None or waiting.called:
            return
        if member is not None and member.name == self._member.config.name:
            waiting.callback(None)
        else:
            self._member.clock.callLater(LEAD_POLL_S, self._await_published)

    def stopService(self) -> None:
        super().stopService()
        self._is_published = None
        self._member.node.stop()


class Listeners(Service):
    """The client and metrics ports."""

    name = "listeners"
    log = Logger()

    def __init__(self, member: Member) -> None:
        self._member = member
        self._ports: list[IListeningPort] = []
        self._factories: list[ClientPort] = []
        self._unread = UnreadTotal()

    def startService(self) -> Deferred[None]:
        super().startService()
        return Deferred.fromCoroutine(self._listen())

    async def _listen(self) -> None:
        member = self._member
        config = member.config
        access = Access(config.cors_origins, config.host_whitelist)
        scrape = Scrape(
            member_sources(
                member.node,
                member.opened,
                member.maintenance,
                config,
                member.call_stats,
                member.health_counts,
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
        policy = tls_policy(config.client_tls)
        split = bool(config.listen_client_http_urls)
        await self._open(config.listen_client_urls, None if split else site, True, policy)
        await self._open(config.listen_client_http_urls, site, False, policy)
        pages = metrics_site(member, member.health_counts, scrape.render)
        metrics = HttpSite(cast(IResource, pages), member.clock)
        await self._open(config.listen_metrics_urls, metrics, False, policy)
        await self._adopt(site, metrics)

    def _factory(self, site: HttpSite | None, serves_calls: bool, is_tls: bool) -> ClientPort:
        member = self._member
        config = member.config
        factory = ClientPort(
            member.clock,
            member.methods if serves_calls else MethodTable(),
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
    ) -> None:
        config = self._member.config
        for url in urls:
            listen_url = parse_listen_url(str(url))
            factory = self._factory(site, serves_calls, listen_url.is_tls)
            reactor = cast(IReactorCore, self._member.reactor)
            self._ports += await listen_all(
                reactor, [listen_url], factory, policy, shares_port=config.socket_reuse_port
            )
            self.log.info("listening on {url}", url=str(url))

    async def _adopt(self, site: HttpSite, metrics: HttpSite) -> None:
        """Take over the sockets of systemd's socket units, beside the URLs."""
        reactor = cast(IReactorSocket, self._member.reactor)
        for name, descriptor in inherited_sockets(started_environment()).items():
            served = {CLIENT_SOCKET: site, METRICS_SOCKET: metrics}[name]
            factory = self._factory(served, name == CLIENT_SOCKET, False)
            self._ports.append(await adopted_endpoint(reactor, descriptor).listen(factory))
            self.log.info("listening on systemd's socket {socket}", socket=name)

    def stopService(self) -> Deferred[Any]:
        """Stop listening, let calls under way end, drop the rest after `DRAIN_S`."""
        super().stopService()
        closing: list[Deferred[Any]] = [maybeDeferred(port.stopListening) for port in self._ports]
        closing += [factory.drain(DRAIN_S) for factory in self._factories]
        self._ports, self._factories = [], []
        return DeferredList(closing)


class Readiness(Service):
    """Tells people and systemd that the member serves."""

    name = "readiness"
    log = Logger()

    def __init__(self, member: Member) -> None:
        self._member = member

    def startService(self) -> None:
        super().startService()
        # What lives now lives as long as the process: the collector need not visit it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self.log.info("ready to serve client requests")
        notify(os.environ)


def tls_policy(tls: ClientTls) -> TlsPolicy | None:
    """Return the policy of the client listeners, None without a certificate."""
    if not tls.cert_file or not tls.key_file:
        return None
    files = TlsFiles(
        cert_file=tls.cert_file,
        key_file=tls.key_file,
        trusted_ca_file=tls.trusted_ca_file or None,
        crl_file=tls.crl_file or None,
        client_cert_auth=tls.client_cert_auth,
        allowed_hostnames=tls.allowed_hostnames,
        version_min=tls.version_min or "TLS1.2",
        version_max=tls.version_max or None,
    )
    return TlsPolicy(_with_ciphers(files, openssl_ciphers(tls.cipher_suites)))


def _with_ciphers(files: TlsFiles, ciphers: str) -> TlsFiles:
    return replace(files, ciphers=ciphers) if ciphers else files


def build_member(reactor: Any, config: Config, unix_ms: Callable[[], int]) -> list[IService]:
    """Return the services of one member; nothing is opened before they start."""
    member = Member(reactor, config, unix_ms)
    services = [Storage(member), Consensus(member), Listeners(member), Readiness(member)]
    return cast("list[IService]", services)
