"""Peers in one process: a deterministic network for tests and the simulator.

Messages travel as octets, so that no two members share an entry, and arrive on the clock that
was passed in.  What happens to each is decided by a function: nothing here is random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from etcdtw.raft.message import MSG_SNAP, Message
from etcdtw.rafthttp.codec import decode_message, encode_message
from etcdtw.rafthttp.messages import may_travel, refusal
from etcdtw.transport.peer.seams import PeerReceiver, SnapshotOctets

Fate = Callable[[Message], Sequence[float]]
"""Returns after how many seconds each copy of a message arrives; none: it is lost."""

Order = Callable[[list[Message]], list[Message]]
"""Returns the messages of one batch in the order in which they leave."""

IN_FLIGHT_MAX: Final = 65_536
"""Messages on their way; beyond that they are lost and reported."""


def deliver_at_once(m: Message) -> Sequence[float]:
    """Lose, delay and double nothing."""
    return (0.0,)


def keep_order(messages: list[Message]) -> list[Message]:
    """Send what comes first first."""
    return messages


class MemoryNetwork:
    """The wires between the members.  ``fate`` and ``order`` may be changed at any time."""

    def __init__(self, clock: IReactorTime, fate: Fate = deliver_at_once) -> None:
        self.clock = clock
        self.fate = fate
        self.order: Order = keep_order
        self.in_flight = 0
        self.transports: dict[int, MemoryTransport] = {}
        self._cut: set[tuple[int, int]] = set()

    def join(self, member_id: int, receiver: PeerReceiver) -> MemoryTransport:
        """Return the transport of a member that starts; one of the same id is stopped."""
        older = self.transports.get(member_id)
        if older is not None:
            older.stop()
        transport = MemoryTransport(self, member_id, receiver)
        self.transports[member_id] = transport
        self.look()
        return transport

    def cut(self, source: int, target: int) -> None:
        """Lose everything from ``source`` to ``target``, what is on its way included."""
        self._cut.add((source, target))
        self.look()

    def mend(self, source: int, target: int) -> None:
        self._cut.discard((source, target))
        self.look()

    def partition(self, *groups: Iterable[int]) -> None:
        """Let members reach only those of their own group; replaces all earlier cuts."""
        group_of = {member: i for i, group in enumerate(groups) for member in group}
        members = sorted(group_of)
        self._cut = {(a, b) for a in members for b in members if group_of[a] != group_of[b]}
        self.look()

    def heal(self) -> None:
        """Mend every cut."""
        self._cut.clear()
        self.look()

    def carries(self, source: int, target: int) -> bool:
        """Tell whether something sent now would arrive."""
        return target in self.transports and (source, target) not in self._cut

    def look(self) -> None:
        """Note who is connected to whom since when; called after every change."""
        for transport in list(self.transports.values()):
            transport.look()


class MemoryTransport:
    """The `PeerTransport` of one member of a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, member_id: int, receiver: PeerReceiver) -> None:
        self.member_id = member_id
        self.receiver = receiver
        self._network = network
        self._peers: set[int] = set()
        self._heard: set[int] = set()  # they have sent something, and so said where they are
        self._since_ms: dict[int, int] = {}
        self._is_stopped = False

    def set_peer(self, member_id: int, urls: Sequence[str]) -> None:
        if member_id != self.member_id:
            self._peers.add(member_id)
            self._network.look()

    def set_remote(self, member_id: int, urls: Sequence[str]) -> None:
        self.set_peer(member_id, urls)

    def remove_peer(self, member_id: int) -> None:
        self._peers.discard(member_id)
        self._heard.discard(member_id)
        self._network.look()

    def send(self, messages: list[Message]) -> None:
        for m in self._network.order(messages):
            assert m.type != MSG_SNAP, "a snapshot goes by send_snapshot"
            if self._reaches(m.to) and not self._is_stopped:
                self._send(m)

    def _send(self, m: Message) -> None:
        network = self._network
        if not network.carries(self.member_id, m.to) or network.in_flight >= IN_FLIGHT_MAX:
            network.clock.callLater(0, self._report_unreachable, m.to)
            return
        octets = encode_message(m)
        for delay_s in network.fate(m):
            network.in_flight += 1
            network.clock.callLater(delay_s, self._arrive, m.to, octets)

    def _arrive(self, target: int, octets: bytes) -> None:
        self._network.in_flight -= 1
        other = self._network.transports.get(target)
        if other is None or not self._network.carries(self.member_id, target):
            return
        m = decode_message(octets)
        if refusal(m, target, self.member_id, other.receiver) is None and may_travel(m):
            other.hear(self.member_id)
            other.receiver.receive(m)

    def send_snapshot(
        self, m: Message, source: str | SnapshotOctets, size: int, done: Callable[[bool], None]
    ) -> None:
        assert m.type == MSG_SNAP and m.snapshot is not None, "only snapshots go this way"
        delays = self._network.fate(m)
        ended = partial(self._snapshot_ended, m.to, done)
        if not self._reaches(m.to) or not delays:
            self._network.clock.callLater(0, ended, False)
            return
        octets = encode_message(m)
        self._network.clock.callLater(delays[0], self._hand_over, m.to, octets, source, size, ended)

    def _hand_over(
        self,
        target: int,
        octets: bytes,
        source: str | SnapshotOctets,
        size: int,
        ended: Callable[[bool], None],
    ) -> None:
        if self._is_stopped:
            return  # the file went with its member
        m = decode_message(octets)
        assert m.snapshot is not None
        other = self._network.transports.get(target)
        if other is None or not self._network.carries(self.member_id, target):
            ended(False)
            return
        if refusal(m, target, self.member_id, other.receiver) is not None:
            ended(False)
            return
        other.hear(self.member_id)
        copy = other.receiver.snapshot_path(m.snapshot.index)

        def failed(failure: Failure) -> None:
            ended(False)

        def written(data: bytes) -> None:
            Path(copy).write_bytes(data)
            other.receiver.snapshot_received(m, copy).addCallbacks(lambda _: ended(True), failed)

        if isinstance(source, str):
            written(Path(source).read_bytes())
        else:
            source.read(size).addCallbacks(written, failed)

    def _snapshot_ended(self, member_id: int, done: Callable[[bool], None], ok: bool) -> None:
        if not self._is_stopped:
            if not ok:
                self.receiver.report_unreachable(member_id)
            self.receiver.report_snapshot(member_id, ok)
        done(ok)

    def hear(self, member_id: int) -> None:
        """Note where ``member_id`` is reached, also if our own state does not name it yet."""
        self._heard.add(member_id)

    def _reaches(self, member_id: int) -> bool:
        return member_id in self._peers or member_id in self._heard

    def knows(self, member_id: int) -> bool:
        """Tell whether ``member_id`` was set as a peer."""
        return member_id in self._peers

    def connected_since_ms(self, member_id: int) -> int | None:
        return self._since_ms.get(member_id)

    def stop(self) -> None:
        """Leave the network; what is on its way to this member is lost."""
        self._is_stopped = True
        if self._network.transports.get(self.member_id) is self:
            del self._network.transports[self.member_id]
        self._network.look()
        self._since_ms.clear()

    def look(self) -> None:
        """Note whom messages flow to and from."""
        for member_id in sorted(self._peers | set(self._since_ms)):
            other = self._network.transports.get(member_id)
            is_connected = (
                member_id in self._peers
                and other is not None
                and other.knows(self.member_id)
                and self._network.carries(self.member_id, member_id)
                and self._network.carries(member_id, self.member_id)
            )
            if not is_connected:
                self._since_ms.pop(member_id, None)
            elif member_id not in self._since_ms:
                self._since_ms[member_id] = int(self._network.clock.seconds() * 1000)

    def _report_unreachable(self, member_id: int) -> None:
        if not self._is_stopped:
            self.receiver.report_unreachable(member_id)
