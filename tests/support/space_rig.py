"""A cluster in one process whose members' disks have as much room as a test says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from etcdtw.node.duties.space import ROOM_AGAIN_MS, SHORT_AFTER_MS, SLOW_SPARE_MIN
from etcdtw.node.node import Node
from etcdtw.raft.entry import Entry
from etcdtw.raft.message import MSG_APP, Message
from etcdtw.storage.disk.room import ROOMY as FOUND_ROOMY
from etcdtw.storage.disk.room import RoomFound
from etcdtw.wire import etcdserverpb as pb
from tests.support.cluster_rig import ClusterRig

SPARE = 1 << 20
TIGHT = RoomFound(True, False, False, SPARE, "the log's disk has 30 MiB free")
SHORT = RoomFound(True, True, False, SLOW_SPARE_MIN, "the log's disk has 10 MiB free")
EXHAUSTED = RoomFound(True, True, True, 0, "the log's disk has 1 MiB free")


class Disk:
    """What one member's looks find."""

    found = FOUND_ROOMY
    error: OSError | None = None
    largest = 0
    """For which there is to be room."""


class SpaceRig(ClusterRig):
    def __init__(self, folder: Path, count: int = 3, **sizes: Any) -> None:
        self.disks = {member_id: Disk() for member_id in range(1, count + 1)}
        super().__init__(folder, count, **sizes)

    def look_at_disks(self, member_id: int, largest: int) -> RoomFound:
        disk = self.disks[member_id]
        disk.largest = largest
        if disk.error is not None:
            raise disk.error
        return disk.found

    def short(self, *nodes: Node, found: RoomFound = SHORT) -> None:
        for node in nodes:
            self.disks[node.member_id].found = found
        self.run(SHORT_AFTER_MS / 1000 + 0.2)

    def meet(self, node: Node, octets: int) -> None:
        """Have a look know of entries of that size."""
        door = node.peers.door
        assert door is not None
        door.takes(offered(node, octets))
        self.run(0.2)

    def free(self, *nodes: Node) -> None:
        for node in nodes:
            self.disks[node.member_id].found = FOUND_ROOMY
        self.run(ROOM_AGAIN_MS / 1000 + 0.2)

    def state(self, node: Node) -> int:
        return node.duties.space.state

    def is_blocked(self, node: Node) -> bool:
        return not node.duties.quota.admit(1)

    def alarms(self) -> list[list[int]]:
        return [[member for member, _ in n.alarms.active(pb.NOSPACE)] for n in self.nodes]

    def followers(self) -> list[Node]:
        leader = self.leader()
        return [node for node in self.nodes if node is not leader]


def offered(node: Node, octets: int, commit: int = 0) -> Message:
    entry = Entry(node.term, node.commit_index + 1, 0, bytes(octets))
    return Message(MSG_APP, to=node.member_id, from_id=99, entries=[entry], commit=commit)
