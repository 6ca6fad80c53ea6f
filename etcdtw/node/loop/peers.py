"""The node's side of its peers: what a turn sends them, and what they send in between.

Keeps the transport's peers equal to the applied membership.  Messages are stepped as they come
and a turn is asked for; nothing is sent from here but in a turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from etcdtw.raft.errors import (
    InvariantError,
    LocalMessageError,
    PeerNotFoundError,
    ProposalDroppedError,
)
from etcdtw.raft.message import MSG_SNAP, Message
from etcdtw.transport.peer import PeerTransport

if TYPE_CHECKING:
    from etcdtw.node.node import Node

_NOBODY: Final[Mapping[int, Sequence[str]]] = MappingProxyType({})
_IGNORED: Final = (LocalMessageError, PeerNotFoundError, ProposalDroppedError)
"""What a peer may cause without being wrong: it does not know yet what we know."""


class Peers:
    """Implements `transport.peer.PeerReceiver` for one node.

    Until `attach` this member is alone: what it would send is dropped, as by a network.
    """

    log = Logger()

    def __init__(self, node: Node) -> None:
        self._node = node
        self._raw = node.parts.raw
        self._transport: PeerTransport | None = None
        self._known: dict[int, tuple[str, ...]] = {}
        self.is_removed_from_cluster = False
        self.ignored_total = 0

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
            if member_id != self._node.member_id and member_id not in self._known:
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
        own_id = self._node.member_id
        wanted = {
            member.member_id: member.peer_urls
            for member in self._node.members.all()
            if member.member_id != own_id
        }
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
                self._node.snapshots.send(m, self._transport)
        self._transport.send([m for m in messages if m.type != MSG_SNAP])

    def connected_since_ms(self, member_id: int) -> int | None:
        """Return since when messages flow in both directions; None: they do not."""
        if self._transport is None:
            return None
        return self._transport.connected_since_ms(member_id)

    def is_connected_to_quorum(self, since_ms: int) -> bool:
        """Tell whether a majority of the voters, this one included, is reached since then."""
        voters = [member.member_id for member in self._node.members.voters()]
        reached = 0
        for member_id in voters:
            if member_id == self._node.member_id:
                reached += 1
            else:
                connected_ms = self.connected_since_ms(member_id)
                reached += connected_ms is not None and connected_ms <= since_ms
        return reached > len(voters) // 2

    # The transport's side: `PeerReceiver`.

    def receive(self, m: Message) -> None:
        """Step a message; a turn does what follows from it."""
        if self._node.is_stopping:
            return
        try:
            self._raw.step(m)
        except _IGNORED:
            self.ignored_total += 1
        except InvariantError as error:
            # Going on could bend what was promised: a leader that knows more of our log than
            # we do means that this log was lost or cut.
            self.log.failure("a message of {peer} broke an invariant", peer=f"{m.from_id:x}")
            self._node.parts.fail_stop(f"{error}; remove this member and add it again")
            return
        except Exception as error:
            # A damaged log, or a core that stopped half way: nothing it says may count.
            self.log.failure("a message of {peer} could not be taken", peer=f"{m.from_id:x}")
            self._node.parts.fail_stop(f"a message of a peer could not be taken: {error}")
            return
        self._node.wake()

    def report_unreachable(self, member_id: int) -> None:
        """Messages to ``member_id`` were lost, or may have been."""
        self._raw.report_unreachable(member_id)
        self._node.wake()

    def report_snapshot(self, member_id: int, ok: bool) -> None:
        """The snapshot to ``member_id`` has arrived, or not."""
        self._raw.report_snapshot(member_id, ok)
        self._node.wake()

    def is_removed(self, member_id: int) -> bool:
        """Tell whether ``member_id`` was removed from the cluster, in our applied state."""
        return self._node.members.is_removed(member_id)

    def removed(self) -> None:
        """A peer says that this member was removed for good."""
        if not self.is_removed_from_cluster:
            self.is_removed_from_cluster = True
            self.log.error("this member has been permanently removed from the cluster")
            self._node.on_removed()

    def snapshot_path(self, index: int) -> str:
        """Return where the database of the snapshot at ``index`` is to be kept."""
        return self._node.snapshots.path_of_received(index)

    def snapshot_received(self, m: Message, path: str) -> Deferred[None]:
        """Take a MsgSnap whose database is durable at ``path``."""
        return self._node.snapshots.received(m, path)
