"""The composition root: one member as services, in the order they start.

    Supervision       tells systemd how it goes, from the first moment to the last
    Doors             takes the member's addresses, if that was not done before twistd forked
    TraceExport       sends traces to a collector, where that is asked for
    Storage           asks the cluster who this member is, if it joins; opens the data
    Peering           lets the other members in and connects with them
    MetricsListeners  opens the metrics ports: probes may ask before there is a quorum
    Consensus         ticks; waits until the cluster knows this member and lets it read; hands over
    KeyCheck          compares this member's keys with the others', and ends it if they differ
    Listeners         opens the client ports
    Readiness         says that clients may come

They stop the other way round: clients are let go first, the data is closed last.  Each is built
when those before it have started, from what they gave and from nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from twisted.internet.interfaces import IReactorCore, IReactorPluggableNameResolver
from twisted.internet.task import deferLater

from etcdtw.client.loopback import Loopback
from etcdtw.client.loopback_ledger import LoopbackBounds
from etcdtw.cluster.urls import own_address
from etcdtw.cluster.version import parse_version
from etcdtw.config.config import Config
from etcdtw.gateway.health import HealthCounts
from etcdtw.gateway.json_gateway import JsonGateway
from etcdtw.gateway.member_health import MemberHealth
from etcdtw.gateway.pages import Access
from etcdtw.gateway.peer_pages import MemberPages
from etcdtw.gateway.shared_page import SharedPage
from etcdtw.gateway.site import client_site, metrics_site
from etcdtw.gateway.turns import Turns
from etcdtw.grpc.stats import ServerStats
from etcdtw.node.duties.publication import Publication
from etcdtw.node.loop.request_stats import DETAILED
from etcdtw.rafthttp.headers import PeerIdentity
from etcdtw.server.doors.addresses import Doors
from etcdtw.server.doors.certificate_watch import CertificateWatch
from etcdtw.server.doors.taken import Taken
from etcdtw.server.member.assembly import open_member
from etcdtw.server.member.opened import OpenMember
from etcdtw.server.member.runtime import Runtime, build_runtime
from etcdtw.server.metrics.metrics import Scrape
from etcdtw.server.metrics.sources import member_sources
from etcdtw.server.process.descriptors import ALL_SHARES, DescriptorShares
from etcdtw.server.process.readiness import started_environment
from etcdtw.server.process.services import Begin, Plan
from etcdtw.server.process.supervision import Supervision
from etcdtw.server.profiles.pages import Profiles
from etcdtw.server.services.consensus import Consensus
from etcdtw.server.services.debug_variables import process_variables
from etcdtw.server.services.key_check import GATE, KeyCheck
from etcdtw.server.services.listeners import (
    ClientSide,
    Listeners,
    MetricsListeners,
    client_side,
)
from etcdtw.server.services.peering import Peering
from etcdtw.server.services.readiness import Readiness
from etcdtw.server.services.storage import Storage
from etcdtw.server.start.data import telling_stop
from etcdtw.server.start.discovery import discovered
from etcdtw.server.start.preflight import take
from etcdtw.server.tracing.export import TraceExport
from etcdtw.transport.client.inflation import inflate_in_turns
from etcdtw.transport.client.places import ClientPlaces
from etcdtw.transport.name_lookup import DialResolver
from etcdtw.transport.peer.client import Dial, build_dial
from etcdtw.transport.peer.dial import PeerTimes
from etcdtw.transport.peer.network import PeerNetwork
from etcdtw.transport.peer_port.addresses import MemberAddresses
from etcdtw.transport.peer_port.server import PeerBounds, PeerPort


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a member is built on: there before its first service starts."""

    config: Config
    runtime: Runtime
    shares: DescriptorShares
    calls: ServerStats
    supervision: Supervision
    doors: Doors


def build_member(
    reactor: Any,
    config: Config,
    unix_ms: Callable[[], int],
    shares: DescriptorShares = ALL_SHARES,
    taken: Taken | None = None,
) -> Plan:
    """Return how one member starts; nothing is opened before it does.

    ``taken``: its addresses and keys; None: they are taken when its doors start.
    """
    runtime = build_runtime(reactor, unix_ms)
    calls = ServerStats()
    if config.measures_calls:
        calls.measure(runtime.now_ms)
    inflate_in_turns(reactor, calls.inflations, runtime.pieces)

    def take_now() -> Taken:
        return take(config, started_environment(), reactor, runtime.now())

    ground = Ground(
        config=config,
        runtime=runtime,
        shares=shares,
        calls=calls,
        supervision=Supervision(runtime.clock, os.environ),
        doors=Doors(reactor, take_now if taken is None else lambda: taken),
    )
    return partial(_start, ground)


async def _start(ground: Ground, begin: Begin) -> None:
    config, runtime, supervision = ground.config, ground.runtime, ground.supervision
    await begin(supervision)
    taken = await begin(ground.doors)
    dial = _dial(ground, taken)
    fail_stop = telling_stop(config)
    discover = partial(discovered, runtime.reactor, taken.lookup)
    tracer = None
    if config.tracing is not None:
        tracer = await begin(TraceExport(config.tracing, runtime.clock, runtime.reactor))
    opened = await begin(Storage(runtime, config, supervision, dial, fail_stop, discover))
    member = open_member(runtime, config, opened, dial, fail_stop, tracer)
    ground.calls.tell(runtime.now_ms, member.node.request_stats.ended, DETAILED)
    ground.calls.prepare(member.services.methods)
    supervision.joining(member.node, member.node.ticks)
    network = _network(ground, member, dial)
    await begin(_peering(ground, taken, member, network))
    await _serve(ground, taken, member, network, begin)


async def _serve(
    ground: Ground, taken: Taken, member: OpenMember, network: PeerNetwork, begin: Begin
) -> None:
    """Begin what needs the peers: the ports for clients and probes, and what is between them."""
    config, runtime, node = ground.config, ground.runtime, member.node
    clock = runtime.clock
    policies = (taken.client_tls, taken.peer_tls.listens, taken.peer_tls.dials)
    certificates = CertificateWatch(
        clock, runtime.now, [one for one in policies if one is not None]
    )
    counts = HealthCounts()
    scrape = Scrape(
        member_sources(member, config, ground.calls, counts, certificates, network, runtime.pieces),
        ground.calls,
    )
    metrics = SharedPage(scrape.render, clock.seconds, partial(clock.callLater, 0))
    health = MemberHealth(node, node.duties.damage, node.duties.space)
    side = client_side(runtime, config, ground.doors, taken.client_tls, ground.calls)
    probed = metrics_site(health, counts, metrics.body)
    await begin(MetricsListeners(side, probed, certificates))
    urls = [str(url) for url in config.advertise_client_urls]
    publication = Publication(node.standing, node.members, node.own, config.name, urls)
    await begin(Consensus(node, clock, publication))
    is_wanted = config.feature_gates[GATE]
    ask_hashes = member.line.ask_hashes
    await begin(KeyCheck(clock, node.standing, node.hashes, ask_hashes, is_wanted=is_wanted))
    pages = client_site(
        health,
        counts,
        node.members,
        metrics.body,
        Access(config.cors_origins, config.host_whitelist),
        lambda: process_variables(node.raft_status()),
        tree=_gateway(ground, config, member, side) if config.enable_grpc_gateway else None,
        clock=clock,
    )
    if config.enable_pprof:
        pages.add(Profiles(runtime.reactor, runtime.unix_ns).pages())
    places = ClientPlaces(ground.shares.clients_max)
    methods = member.services.methods
    await begin(Listeners(side, methods, places, pages, node.standing, node.ticks))
    await begin(Readiness(ground.supervision, node.ticks, node.wakeup.time_ms))
    for _ in scrape.prepare():
        await deferLater(clock, 0)  # a part at a time: peers are served already


def _gateway(ground: Ground, config: Config, member: OpenMember, side: ClientSide) -> JsonGateway:
    """Return the JSON gateway; its calls are clients' calls, and count as such."""
    guard = member.services.guard
    has_names = config.client_tls.client_cert_auth
    clock = ground.runtime.clock
    message_size_max = side.bounds.message_size_max
    bounds = LoopbackBounds(message_size_max=message_size_max)
    loopback = Loopback(member.services.methods, ground.calls, clock, bounds)
    turns = Turns(clock, ground.runtime.pieces)
    return JsonGateway(loopback, turns, message_size_max, lambda: has_names and guard.switch.is_on)


def _dial(ground: Ground, taken: Taken) -> Dial:
    """Return the way to other members; redials are many: what looks their names up is bounded."""
    reactor = ground.runtime.reactor
    resolver = DialResolver(taken.lookup)
    cast(IReactorPluggableNameResolver, reactor).installNameResolver(resolver)
    # etcd's dial timeout: a second and an election.
    dial_s = 1.0 + ground.config.election_timeout_ms / 1000
    own = None
    if ground.config.feature_gates["SetMemberLocalAddr"]:
        own = own_address(ground.config.initial_advertise_peer_urls)
    return build_dial(cast(IReactorCore, reactor), taken.peer_tls.dials.wrap, dial_s, own)


def _network(ground: Ground, member: OpenMember, dial: Dial) -> PeerNetwork:
    runtime, node = ground.runtime, member.node
    identity = PeerIdentity(
        cluster_id=node.cluster_id,
        member_id=node.member_id,
        version=parse_version(node.members.server_version),
        peer_urls=tuple(str(url) for url in ground.config.initial_advertise_peer_urls),
    )
    return PeerNetwork(
        identity,
        node.peers,
        clock=runtime.clock,
        dial=dial,
        offload=runtime.offload,
        unix_ns=runtime.unix_ns,
        times=PeerTimes(silence_s=ground.config.raft_read_timeout_s),
    )


def _peering(ground: Ground, taken: Taken, member: OpenMember, network: PeerNetwork) -> Peering:
    runtime, node, data = ground.runtime, member.node, member.data
    services = member.services

    def member_urls() -> list[str]:
        """Return where members may come from: a cluster that is joined shows itself first."""
        return [url for one in (*node.members.all(), *data.remotes) for url in one.peer_urls]

    addresses = MemberAddresses(taken.lookup, member_urls)
    port = PeerPort(
        network,
        MemberPages(node, services.cluster, services.leases_for_peers),
        clock=runtime.clock,
        offload=runtime.offload,
        unix_ns=runtime.unix_ns,
        bounds=PeerBounds(places=ground.shares.places, stall_s=ground.config.raft_write_timeout_s),
        is_member=addresses.has,
        proves=taken.peer_tls.proves_members,
        room=data.reception_room,
        saves=data.saves,
    )
    return Peering(
        peers=node.peers,
        snapshots=node.snapshots,
        ticks=node.ticks,
        members=node.members,
        network=network,
        remotes=data.remotes,
        addresses=addresses,
        port=port,
        doors=ground.doors,
        tls=taken.peer_tls.listens,
        clock=runtime.clock,
    )
