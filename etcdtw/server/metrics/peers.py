"""Where the metrics of the other members are read: one series for each of them.

``To`` and ``From`` are the peer's id; what a stranger sends counts too, once it is known.
"""

from __future__ import annotations

from collections.abc import Callable

from etcdtw.cluster.ids import id_text
from etcdtw.node.facade import Facade
from etcdtw.server.metrics.metrics import Reading, Source
from etcdtw.transport.peer.network import PeerNetwork
from etcdtw.transport.peer.seams import PeerStats

Readings = dict[tuple[str, ...], Reading]


def peer_sources(node: Facade, network: PeerNetwork) -> dict[str, Source]:
    """Return the sources of what the peers' transport counted."""
    local = id_text(node.member_id)

    def each(value: Callable[[PeerStats], Reading]) -> Source:
        def read() -> Readings:
            return {(id_text(one),): value(stats) for one, stats in network.stats().items()}

        return read

    def active() -> Readings:
        return {
            (local, id_text(one)): int(network.connected_since_ms(one) is not None)
            for one in network.stats()
            if network.has_peer(one)
        }

    def disconnected() -> Readings:
        return {
            (local, id_text(one)): stats.disconnects
            for one, stats in network.stats().items()
            if network.has_peer(one)
        }

    def known() -> Readings:
        """As etcd does it: this member too, and 0 for those that were removed."""
        members = node.members
        gone: Readings = {(local, id_text(one)): 0 for one in members.removed_ids}
        return {**gone, **{(local, id_text(one.member_id)): 1 for one in members.all()}}

    sent, received = "etcd_network_snapshot_send", "etcd_network_snapshot_receive"
    return {
        "etcd_network_active_peers": active,
        "etcd_network_disconnected_peers_total": disconnected,
        "etcd_network_known_peers": known,
        "etcd_network_peer_sent_bytes_total": each(lambda stats: stats.sent_octets),
        "etcd_network_peer_sent_failures_total": each(lambda stats: stats.send_failures),
        "etcd_network_peer_received_bytes_total": each(lambda stats: stats.received_octets),
        "etcd_network_peer_received_failures_total": each(lambda stats: stats.receive_failures),
        "etcd_network_peer_round_trip_time_seconds": each(lambda stats: stats.round_trip_s),
        f"{sent}_inflights_total": each(lambda stats: stats.snapshots_out.in_flight),
        f"{sent}_success": each(lambda stats: stats.snapshots_out.succeeded),
        f"{sent}_failures": each(lambda stats: stats.snapshots_out.failed),
        f"{sent}_total_duration_seconds": each(lambda stats: stats.snapshots_out.took_s),
        f"{received}_inflights_total": each(lambda stats: stats.snapshots_in.in_flight),
        f"{received}_success": each(lambda stats: stats.snapshots_in.succeeded),
        f"{received}_failures": each(lambda stats: stats.snapshots_in.failed),
        f"{received}_total_duration_seconds": each(lambda stats: stats.snapshots_in.took_s),
    }
