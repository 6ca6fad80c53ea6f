"""The peers over etcd's own protocol: the `PeerTransport` of a real member.

Its other half is `peer_port.server`, which hands over the streams that peers open to us.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from etcdtw.cluster.ids import id_text
from etcdtw.raft.message import MSG_SNAP, Message
from etcdtw.rafthttp.headers import PeerIdentity
from etcdtw.rafthttp.messages import may_travel, refusal
from etcdtw.transport.peer.client import Dial
from etcdtw.transport.peer.dial import PeerTimes
from etcdtw.transport.peer.link import LinkParts, PeerLink
from etcdtw.transport.peer.outlet import StreamOutlet
from etcdtw.transport.peer.seams import PeerReceiver, PeerStats, SnapshotOctets
from etcdtw.transport.peer.snapshot_out import Offload, SnapshotUpload

SNAPSHOTS_MAX: Final = 16
"""Snapshots on their way at once; etcd's bound."""
REMOTES_MAX: Final = 64
"""Strangers that we answer; whoever knows the cluster's id may ask to be one."""


class PeerNetwork:
    """All links of this member, by the peer's id."""

    log = Logger()

    def __init__(
        self,
        identity: PeerIdentity,
        receiver: PeerReceiver,
        *,
        clock: IReactorTime,
        dial: Dial,
        offload: Offload,
        unix_ns: Callable[[], int],
        times: PeerTimes | None = None,
    ) -> None:
        """``unix_ns``: the wall clock, which is compared with those of the peers."""
        self.identity = identity
        self.receiver = receiver
        self._clock = clock
        self._dial = dial
        self._offload = offload
        self._parts = LinkParts(
            identity=identity,
            dial=dial,
            clock=clock,
            unix_ns=unix_ns,
            times=times or PeerTimes(),
            owner=self,
        )
        self._links: dict[int, PeerLink] = {}
        self._uploads: set[SnapshotUpload] = set()
        self._unreachable: set[int] = set()  # to be reported at the next turn
        self._is_stopped = False
        self._is_told_removed = False

    # -- PeerTransport -------------------------------------------------------------------------

    def set_peer(self, member_id: int, urls: Sequence[str]) -> None:
        link = self._set(member_id, urls)
        if link is not None:
            link.start_streams()

    def set_remote(self, member_id: int, urls: Sequence[str]) -> None:
        """Know where to answer a member that our state does not name yet.

        Whoever is known already stays as it is: a stranger may say anything.
        """
        remotes = sum([not link.is_peer for link in self._links.values()])
        if member_id not in self._links and remotes < REMOTES_MAX:
            self._set(member_id, urls)

    def remove_peer(self, member_id: int) -> None:
        link = self._links.pop(member_id, None)
        if link is not None:
            link.stop()
            self._unreachable.discard(member_id)

    def send(self, messages: list[Message]) -> None:
        written: dict[int, PeerLink] = {}
        for m in messages:
            assert m.type != MSG_SNAP, "a snapshot goes by send_snapshot"
            link = self._links.get(m.to)
            if link is None:
                continue  # it left while Raft spoke to it, or we do not know it yet
            written[m.to] = link
            if not link.push(m):
                self.messages_lost(m.to)
        for link in written.values():
            link.flush()

    def send_snapshot(
        self, m: Message, source: str | SnapshotOctets, size: int, done: Callable[[bool], None]
    ) -> None:
        assert m.type == MSG_SNAP and m.snapshot is not None, "only snapshots go this way"
        link = self._links.get(m.to)
        if link is None or self._is_stopped or len(self._uploads) >= SNAPSHOTS_MAX:
            if link is not None:
                link.stats.snapshots_out.failed += 1
            self._clock.callLater(0, self._snapshot_ended, link, m.to, False, done)
            return
        stats = link.stats
        stats.snapshots_out.begin()
        began_s = self._clock.seconds()

        def ended(ok: bool) -> None:
            self._uploads.discard(upload)
            stats.snapshots_out.end(ok, self._clock.seconds() - began_s)
            stats.sent_octets += size if ok else 0
            self._snapshot_ended(link, m.to, ok, done)

        upload = SnapshotUpload(
            m,
            source,
            size,
            identity=self.identity,
            url=link.urls.current,
            dial=self._dial,
            clock=self._clock,
            offload=self._offload,
            done=ended,
        )
        self._uploads.add(upload)
        self._clock.callLater(0, upload.start)

    def connected_since_ms(self, member_id: int) -> int | None:
        link = self._links.get(member_id)
        return None if link is None else link.connected_since_ms

    def stop(self) -> None:
        self._is_stopped = True
        for link in self._links.values():
            link.stop()
        self._links.clear()
        for upload in list(self._uploads):
            upload.cancel()
        self._uploads.clear()
        self._unreachable.clear()

    # -- for the peer port and the metrics -----------------------------------------------------

    def stats(self) -> dict[int, PeerStats]:
        """Return the counters of every peer, by its id."""
        return {member_id: link.stats for member_id, link in self._links.items()}

    def stats_of(self, member_id: int | None) -> PeerStats:
        """Return the counters of one peer; of a stranger, some that nobody reads."""
        link = None if member_id is None else self._links.get(member_id)
        return PeerStats() if link is None else link.stats

    def has_peer(self, member_id: int) -> bool:
        """Tell whether a member may open streams to us; a remote may not."""
        link = self._links.get(member_id)
        return link is not None and link.is_peer

    def attach(self, member_id: int, outlet: StreamOutlet) -> None:
        """Write to ``member_id`` by a stream that it opened."""
        self._links[member_id].attach(outlet)

    def accept(self, m: Message, sender_id: int | None, size: int) -> str | None:
        """Take a message that was posted; returns why it is refused, None: it is not."""
        link = self._links.get(m.from_id)
        if link is not None:
            link.stats.received_octets += size
        why = refusal(m, self.identity.member_id, sender_id, self.receiver)
        if why is None and may_travel(m) and not self._is_stopped:
            self.receiver.receive(m)
        elif link is not None:
            link.stats.receive_failures += 1
        return why

    # -- what the links tell -------------------------------------------------------------------

    def deliver(self, sender_id: int, messages: list[Message], stats: PeerStats) -> None:
        """Take what came by a stream; what may not reach Raft is counted and dropped."""
        for m in messages:
            if self._is_stopped:
                return
            why = refusal(m, self.identity.member_id, sender_id, self.receiver)
            if why is None and may_travel(m):
                self.receiver.receive(m)
            else:
                stats.receive_failures += 1
                self.log.debug("{m} from {peer} dropped", m=m, peer=id_text(sender_id))

    def messages_lost(self, member_id: int) -> None:
        """Report it, but not now: the node may be in the middle of its turn."""
        if self._is_stopped:
            return
        if not self._unreachable:
            self._clock.callLater(0, self._report)
        self._unreachable.add(member_id)

    def told_removed(self) -> None:
        if not self._is_stopped and not self._is_told_removed:
            self._is_told_removed = True  # each stream of each peer will say so
            self.receiver.removed()

    def _report(self) -> None:
        unreachable, self._unreachable = sorted(self._unreachable), set()
        for member_id in unreachable:
            if not self._is_stopped:
                self.receiver.report_unreachable(member_id)

    def _snapshot_ended(
        self, link: PeerLink | None, member_id: int, ok: bool, done: Callable[[bool], None]
    ) -> None:
        if not self._is_stopped:
            if not ok:
                if link is not None:
                    link.urls.rotate(link.urls.current)
                self.receiver.report_unreachable(member_id)
            self.receiver.report_snapshot(member_id, ok)
        done(ok)

    def _set(self, member_id: int, urls: Sequence[str]) -> PeerLink | None:
        if self._is_stopped or member_id == self.identity.member_id or not urls:
            return None
        link = self._links.get(member_id)
        if link is None:
            link = self._links[member_id] = PeerLink(member_id, tuple(urls), self._parts)
        else:
            link.urls.replace(tuple(urls))
        return link
