"""The node's side of its peers: what a turn sends them, and what they send in between.

Keeps the transport's peers equal to the applied membership.  Messages are stepped as they come
and a turn is asked for; nothing is sent from here but in a turn.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from etcdtw.apply.members import Members
from etcdtw.node.intake.seams import Door
from etcdtw.node.intake.stepping import Stepper
from etcdtw.node.standing import Standing
from etcdtw.raft.message import MSG_SNAP, Message
from etcdtw.transport.peer.seams import PeerTransport

_NOBODY: Final[Mapping[int, Sequence[str]]] = MappingProxyType({})


class PeerSnapshots(Protocol):
    """Whole snapshots in both directions (`duties.snapshots`)."""

    def send(self, m: Message, transport: PeerTransport) -> None: ...

    def path_of_received(self, index: int) -> str: ...

    def received(self, m: Message, path: str) -> Deferred[None]: ...


class Peers:
    """Implements `transport.peer.seams.PeerReceiver` for one node.

    Until `attach` this member is alone: what it would send is dropped, as by a network.
    """

    log = Logger()

    def __init__(
        self,
        standing: Standing,
        members: Members,
        stepper: Stepper,
        snapshots: PeerSnapshots,
        on_removed: Callable[[], None],
    ) -> None:
        """``on_removed``: called once when the others say that this member was removed for good."""
        self._standing = standing
        self._members = members
        self._snapshots = snapshots
        self._on_removed = on_removed
        self._transport: PeerTransport | None = None
        self._known: dict[int, tuple[str, ...]] = {}
        self.is_removed_from_cluster = False
        self._stepper = stepper
        self.receive = stepper.receive
        self.report_unreachable = stepper.report_unreachable
        self.report_snapshot = stepper.report_snapshot

    @property
    def door(self) -> Door | None:
        """Who decides what of the peers' messages is stepped; None: all is."""
        return self._stepper.door

    # The node's side.

    def attach(
        self, transport: PeerTransport, remotes: Mapping[int, Sequence[str]] = _NOBODY
    ) -> None:
        """Reach the members through ``transport`` from now on.

        ``remotes``: URLs of members that a joining one was told of; its own log names nobody yet.
        """
        self._transport = transport
        self._known = {}
        self.follow_membership()
        for member_id, urls in remotes.items():
            if member_id != self._standing.member_id and member_id not in self._known:
                transport.set_remote(member_id, urls)

    def detach(self) -> None:
        """The member stops: nothing is sent or received any more."""
        if self._transport is not None:
            self._transport.stop()
            self._transport = None

    def follow_membership(self) -> None:
        """Reach exactly the members of the applied membership, at their present URLs."""
        transport = self._transport
        if transport is None:
            return
        wanted = {one.member_id: one.peer_urls for one in self._standing.others()}
        for member_id in self._known.keys() - wanted.keys():
            transport.remove_peer(member_id)
        for member_id, urls in wanted.items():
            if self._known.get(member_id) != urls:
                transport.set_peer(member_id, urls)
        self._known = wanted

    def send(self, messages: list[Message]) -> None:
        """Send what a turn has produced, in order; snapshots go their own way."""
        if self._transport is None:
            return
        for m in messages:
            if m.type == MSG_SNAP:
                self._snapshots.send(m, self._transport)
        self._transport.send([m for m in messages if m.type != MSG_SNAP])

    def connected_since_ms(self, member_id: int) -> int | None:
        """Return since when messages flow in both directions; None: they do not."""
        if self._transport is None:
            return None
        return self._transport.connected_since_ms(member_id)

    def is_connected_to_quorum(self, since_ms: int) -> bool:
        """Tell whether a majority of the voters, this one included, is reached since then."""
        voters = [member.member_id for member in self._members.voters()]
        reached = 0
        for member_id in voters:
            if member_id == self._standing.member_id:
                reached += 1
            else:
                connected_ms = self.connected_since_ms(member_id)
                reached += connected_ms is not None and connected_ms <= since_ms
        return reached > len(voters) // 2

    def is_connected(self, since_ms: int) -> bool:
        """Whether the leader was reached since then; by a leader, a quorum."""
        leader_id = self._standing.leader_id
        if leader_id in (0, self._standing.member_id):
            return leader_id == 0 or self.is_connected_to_quorum(since_ms)
        connected_ms = self.connected_since_ms(leader_id)
        return connected_ms is not None and connected_ms <= since_ms

    # The transport's side: `PeerReceiver`, whose other methods are the stepper's.

    def is_removed(self, member_id: int) -> bool:
        """Tell whether ``member_id`` was removed from the cluster, in our applied state."""
        return self._members.is_removed(member_id)

    def removed(self) -> None:
        """A peer says that this member was removed for good."""
        if not self.is_removed_from_cluster:
            self.is_removed_from_cluster = True
            self.log.error("this member has been permanently removed from the cluster")
            self._on_removed()

    def snapshot_path(self, index: int) -> str:
        """Return where the database of the snapshot at ``index`` is to be kept.

        Raises OSError: there is no room for it.
        """
        if self.door is not None and self.door.is_short:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._snapshots.path_of_received(index)

    def snapshot_received(self, m: Message, path: str) -> Deferred[None]:
        """Take a MsgSnap whose database is durable at ``path``."""
        return self._snapshots.received(m, path)
