"""What there is of a member once its data is open: whole, or not at all."""

from __future__ import annotations

from dataclasses import dataclass

from etcdtw.grpc.call import MethodTable
from etcdtw.node.node import Node
from etcdtw.rpc.cluster.service import ClusterService
from etcdtw.rpc.guard import Guard
from etcdtw.rpc.lease.for_peers import LeasesForPeers
from etcdtw.rpc.maintenance.service import MaintenanceService
from etcdtw.rpc.maintenance.snapshot import SnapshotService
from etcdtw.server.member.leader_line import LeaderLine
from etcdtw.server.start.data import Data
from etcdtw.storage.disk.room import DiskRoom
from etcdtw.storage.snapshot.snapshots import StateSnapshots


@dataclass(frozen=True, kw_only=True)
class OpenData:
    """What `services.storage` gives."""

    data: Data
    snapshot_files: StateSnapshots


@dataclass(frozen=True, kw_only=True)
class Services:
    """What answers a member's clients, and its peers beside Raft."""

    methods: MethodTable
    maintenance: MaintenanceService
    snapshots: SnapshotService
    cluster: ClusterService
    leases_for_peers: LeasesForPeers
    guard: Guard


@dataclass(frozen=True, kw_only=True)
class OpenMember:
    """A member on its data, built by `assembly`; nothing of it is started yet."""

    data: Data
    room: DiskRoom
    node: Node
    line: LeaderLine
    services: Services
