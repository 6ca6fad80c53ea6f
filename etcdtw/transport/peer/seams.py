"""The seam between a member and its peers: what the node asks for, and what it is told.

Implemented by `network` (etcd's protocol) and `memory` (tests, the simulator); the
node implements `PeerReceiver`.  Knows no sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.defer import Deferred

from etcdtw.raft.message import Message
from etcdtw.wire.histogram import Histogram, exponential_bounds

ROUND_TRIP_BOUNDS_S = exponential_bounds(0.0001, 16)
SNAPSHOT_BOUNDS_S = exponential_bounds(0.1, 10)


@dataclass(kw_only=True)
class SnapshotTraffic:
    """The snapshots that one peer was sent, or those that it sent."""

    in_flight: int = 0
    succeeded: int = 0
    failed: int = 0
    took_s: Histogram = field(default_factory=lambda: Histogram(SNAPSHOT_BOUNDS_S))
    """Of those that succeeded."""

    def begin(self) -> None:
        self.in_flight += 1

    def end(self, ok: bool, took_s: float) -> None:
        self.in_flight -= 1
        if ok:
            self.succeeded += 1
            self.took_s.observe(took_s)
        else:
            self.failed += 1


@dataclass(kw_only=True)
class PeerStats:
    """What went to and came from one peer; plain numbers for etcd's peer metrics."""

    sent_octets: int = 0
    received_octets: int = 0
    send_failures: int = 0
    receive_failures: int = 0
    disconnects: int = 0
    """How often messages ceased to flow in both directions."""
    snapshots_out: SnapshotTraffic = field(default_factory=SnapshotTraffic)
    snapshots_in: SnapshotTraffic = field(default_factory=SnapshotTraffic)
    round_trip_s: Histogram = field(default_factory=lambda: Histogram(ROUND_TRIP_BOUNDS_S))


@dataclass(frozen=True)
class PageAnswer:
    """An HTTP answer of a page; ``headers`` beyond the length, in the order they are sent."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = field(default=())


class PeerPages(Protocol):
    """The pages of the peer port that are not Raft's: /members, /version, /leases ..."""

    def page(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> Deferred[PageAnswer] | None:
        """Answer one request; None: there is no such page.

        ``path`` has no query; the names in ``headers`` are in lower case.  The answer is
        cancelled when the peer hangs up or has waited too long.
        """
        ...


class PeerReceiver(Protocol):
    """The member as its peers see it.  Nothing here may call back into the transport's `send`."""

    def receive(self, m: Message) -> None:
        """Take a message that is meant for this member and comes from where it says."""
        ...

    def report_unreachable(self, member_id: int) -> None:
        """Messages to ``member_id`` were lost, or may have been."""
        ...

    def report_snapshot(self, member_id: int, ok: bool) -> None:
        """The snapshot to ``member_id`` has arrived, or not."""
        ...

    def is_removed(self, member_id: int) -> bool:
        """Tell whether ``member_id`` was removed from the cluster, in our applied state."""
        ...

    def removed(self) -> None:
        """A peer says that this member was removed for good: it must end."""
        ...

    def snapshot_path(self, index: int) -> str:
        """Return where the database of the snapshot at ``index`` is to be kept."""
        ...

    def snapshot_received(self, m: Message, path: str) -> Deferred[None]:
        """Take a MsgSnap whose database is durable at ``path``, which is ours from now on.

        A failure's text is told to the sender.
        """
        ...


class SnapshotOctets(Protocol):
    """A snapshot's database that is no file: its octets come as they are asked for."""

    def read(self, wanted: int) -> Deferred[bytes]:
        """Give the next octets, ``wanted`` at most; none: no more come."""
        ...


class PeerTransport(Protocol):
    """The way to the peers."""

    def set_peer(self, member_id: int, urls: Sequence[str]) -> None:
        """Keep in touch with a member at ``urls``; known already: with new ones."""
        ...

    def set_remote(self, member_id: int, urls: Sequence[str]) -> None:
        """Know where to answer a member that our own state does not name yet."""
        ...

    def remove_peer(self, member_id: int) -> None: ...

    def send(self, messages: list[Message]) -> None:
        """Send what one turn produced, in order; called once a turn.  Never a MsgSnap.

        Whatever cannot be sent is dropped and reported as unreachable, once the caller is done.
        """
        ...

    def send_snapshot(
        self, m: Message, source: str | SnapshotOctets, size: int, done: Callable[[bool], None]
    ) -> None:
        """Send a MsgSnap with the ``size`` octets of ``source``: the path of a file, or no file.

        The receiver is told how it ended, then ``done`` is called: the source may go.
        """
        ...

    def connected_since_ms(self, member_id: int) -> int | None:
        """Return when messages began to flow in both directions; None: they do not."""
        ...

    def stop(self) -> None:
        """Close everything; nothing is received or reported after that."""
        ...
