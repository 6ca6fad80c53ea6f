"""This member among its peers: the peer listeners, the links to the others, what they may ask."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from etcdtw.cluster.version import parse_version
from etcdtw.gateway.peer_pages import MemberPages
from etcdtw.rafthttp.headers import PeerIdentity
from etcdtw.server.doors.addresses import PEER
from etcdtw.server.member.member import Member
from etcdtw.transport.listener import over_tls
from etcdtw.transport.peer.network import PeerNetwork
from etcdtw.transport.peer_port.addresses import MemberAddresses
from etcdtw.transport.peer_port.server import PeerBounds, PeerPort


class Peering(Service):
    """Listens on the peer URLs and connects the node with the other members."""

    name = "peering"
    log = Logger()

    def __init__(self, member: Member) -> None:
        self._member = member
        self._port: PeerPort | None = None
        self._identity: PeerIdentity | None = None
        self._said = ""

    def startService(self) -> None:
        super().startService()
        member = self._member
        node = member.node
        node.snapshots.prepare()
        self._identity = identity = PeerIdentity(
            cluster_id=node.cluster_id,
            member_id=node.member_id,
            version=parse_version(node.members.server_version),
            peer_urls=tuple(str(url) for url in member.config.initial_advertise_peer_urls),
        )
        node.ticks.follow(self._follow_line)
        network = member.network = PeerNetwork(
            identity,
            node.peers,
            clock=member.clock,
            dial=member.dial,
            offload=member.offload,
            unix_ns=self._unix_ns,
        )
        addresses = MemberAddresses(member.taken.lookup, self._member_urls)
        addresses.look(0)
        node.ticks.follow(addresses.look)
        services = member.services
        pages = MemberPages(node, services.cluster, services.leases_for_peers)
        self._port = PeerPort(
            network,
            pages,
            clock=member.clock,
            offload=member.offload,
            unix_ns=self._unix_ns,
            bounds=PeerBounds(places=member.shares.places),
            is_member=addresses.has,
            proves=member.peer_tls.proves_members,
            room=member.opened.reception_room,
            saves=member.opened.saves,
        )
        for door in member.doors.of(PEER):
            door.open(over_tls(door.url, self._port, member.peer_tls.listens, member.clock))
            self.log.info("listening for peers on {url}", url=door.url.text)
        remotes = {one.member_id: one.peer_urls for one in member.opened.remotes}
        node.peers.attach(network, remotes)

    def _member_urls(self) -> list[str]:
        """Return where members may come from: a cluster that is joined shows itself first."""
        member = self._member
        known = (*member.node.members.all(), *member.opened.remotes)
        return [url for one in known for url in one.peer_urls]

    def _unix_ns(self) -> int:
        return self._member.unix_ms() * 1_000_000

    def _follow_line(self, now_ms: int) -> None:
        """Say to peers what the cluster's line of the moment makes us say."""
        version = self._member.node.members.server_version
        if version != self._said:
            self._said = version
            assert self._identity is not None
            self._identity.version = parse_version(version)

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        closing = self._member.doors.close(PEER)
        self._member.node.peers.detach()
        if self._port is not None:
            self._port.close()
        return closing
