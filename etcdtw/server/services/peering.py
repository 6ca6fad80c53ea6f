"""This member among its peers: the peer listeners, the links to the others, what they may ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from etcdtw.apply.members import Members
from etcdtw.cluster.member import Member
from etcdtw.cluster.version import parse_version
from etcdtw.node.duties.snapshots import Snapshots
from etcdtw.node.loop.peers import Peers
from etcdtw.node.loop.ticks import Ticks
from etcdtw.server.doors.addresses import PEER, Doors
from etcdtw.transport.listener import over_tls
from etcdtw.transport.peer.network import PeerNetwork
from etcdtw.transport.peer_port.addresses import MemberAddresses
from etcdtw.transport.peer_port.server import PeerPort
from etcdtw.transport.tls.policy import TlsPolicy


class Peering(Service):
    """Listens on the peer URLs and connects the node with the other members."""

    name = "peering"
    log = Logger()

    def __init__(
        self,
        *,
        peers: Peers,
        snapshots: Snapshots,
        ticks: Ticks,
        members: Members,
        network: PeerNetwork,
        remotes: Sequence[Member],
        addresses: MemberAddresses,
        port: PeerPort,
        doors: Doors,
        tls: TlsPolicy | None,
        clock: IReactorTime,
    ) -> None:
        """``remotes``: the members that are known before the log has named them."""
        self._peers = peers
        self._snapshots = snapshots
        self._ticks = ticks
        self._members = members
        self._network = network
        self._remotes = remotes
        self._addresses = addresses
        self._port = port
        self._doors = doors
        self._tls = tls
        self._clock = clock
        self._said = ""

    def startService(self) -> None:
        super().startService()
        self._snapshots.prepare()
        self._ticks.follow(self._follow_line)
        self._addresses.look(0)
        self._ticks.follow(self._addresses.look)
        for door in self._doors.of(PEER):
            door.open(over_tls(door.url, self._port, self._tls, self._clock))
            self.log.info("listening for peers on {url}", url=door.url.text)
        self._peers.attach(self._network, {one.member_id: one.peer_urls for one in self._remotes})

    def _follow_line(self, now_ms: int) -> None:
        """Say to peers what the cluster's line of the moment makes us say."""
        version = self._members.server_version
        if version != self._said:
            self._said = version
            self._network.identity.version = parse_version(version)

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        closing = self._doors.close(PEER)
        self._peers.detach()
        self._port.close()
        return closing
