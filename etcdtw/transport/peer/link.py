"""All that goes to and comes from one peer: two streams each way, and posts where those lack.

We write into the streams that the peer opened to us and read those that we opened to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol as Seam

from twisted.internet.interfaces import IReactorTime

from etcdtw.raft.message import MSG_APP, Message
from etcdtw.rafthttp.headers import PeerIdentity
from etcdtw.transport.peer.client import Dial, UrlRing
from etcdtw.transport.peer.dial import ATTACHED, PeerTimes, StreamDialler
from etcdtw.transport.peer.outlet import STREAM_APPEND, STREAM_KINDS, STREAM_MESSAGE, StreamOutlet
from etcdtw.transport.peer.pipeline import Pipeline, PipelineParts
from etcdtw.transport.peer.prober import PeerProber
from etcdtw.transport.peer.seams import PeerStats


class LinkOwner(Seam):
    """Whom the links tell what came and what was lost."""

    def deliver(self, sender_id: int, messages: list[Message], stats: PeerStats) -> None: ...
    def messages_lost(self, member_id: int) -> None: ...
    def told_removed(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class LinkParts:
    """What all links share."""

    identity: PeerIdentity
    dial: Dial
    clock: IReactorTime
    unix_ns: Callable[[], int]
    times: PeerTimes
    owner: LinkOwner


class PeerLink:
    """One peer.  A remote has no streams: our own state does not say yet that it is a member."""

    def __init__(self, member_id: int, urls: tuple[str, ...], parts: LinkParts) -> None:
        self.member_id = member_id
        self.urls = UrlRing(urls)
        self.stats = PeerStats()
        self.connected_since_ms: int | None = None
        self._parts = parts
        self._outlets: dict[str, StreamOutlet] = {}
        self._diallers: dict[str, StreamDialler] = {}
        self._is_stopped = False
        posts = PipelineParts(
            identity=parts.identity,
            urls=self.urls,
            dial=parts.dial,
            clock=parts.clock,
            times=parts.times,
            stats=self.stats,
        )
        self._pipeline = Pipeline(posts, self)
        self._prober = PeerProber(
            member_id,
            urls=self.urls,
            dial=parts.dial,
            clock=parts.clock,
            unix_ns=parts.unix_ns,
            stats=self.stats,
        )

    @property
    def is_peer(self) -> bool:
        """Whether it is a member, with streams, and not just a remote."""
        return bool(self._diallers)

    def start_streams(self) -> None:
        """Dial the peer's streams, from now on, and probe it."""
        if self._diallers:
            return
        parts = self._parts
        for kind in STREAM_KINDS:
            self._diallers[kind] = StreamDialler(
                kind,
                self.member_id,
                identity=parts.identity,
                urls=self.urls,
                dial=parts.dial,
                clock=parts.clock,
                times=parts.times,
                stats=self.stats,
                owner=self,
            )
        for dialler in self._diallers.values():
            dialler.start()
        self._prober.start()

    def stop(self) -> None:
        """Close everything; the owner is told nothing more."""
        self._is_stopped = True
        for dialler in self._diallers.values():
            dialler.stop()
        self._pipeline.stop()
        self._prober.stop()
        for outlet in list(self._outlets.values()):
            outlet.close()
        self.connected_since_ms = None

    # -- out -----------------------------------------------------------------------------------

    def push(self, m: Message) -> bool:
        """Queue ``m`` for the next `flush`; returns False when it had to be dropped."""
        outlet = self._outlets.get(STREAM_APPEND) if m.type == MSG_APP else None
        if outlet is None:
            outlet = self._outlets.get(STREAM_MESSAGE)
        is_taken = self._pipeline.push(m) if outlet is None else outlet.push(m)
        if not is_taken:
            self.stats.send_failures += 1
        return is_taken

    def flush(self) -> None:
        """Write what was pushed: at most once to each stream."""
        for outlet in list(self._outlets.values()):
            outlet.flush()
        self._pipeline.flush()

    def attach(self, outlet: StreamOutlet) -> None:
        """Write into ``outlet`` from now on; an older one of its kind is closed."""
        older = self._outlets.get(outlet.kind)
        if older is not None:
            older.close()
        outlet.stats = self.stats
        outlet.on_lost = self._outlet_lost
        self._outlets[outlet.kind] = outlet
        self._look()

    def _outlet_lost(self, outlet: StreamOutlet) -> None:
        if self._outlets.get(outlet.kind) is outlet:
            del self._outlets[outlet.kind]
        self._look()
        self.messages_lost()

    # -- what its parts tell -------------------------------------------------------------------

    def messages_received(self, messages: list[Message]) -> None:
        self._parts.owner.deliver(self.member_id, messages, self.stats)

    def stream_attached(self, kind: str) -> None:
        self._look()

    def stream_lost(self, kind: str) -> None:
        self._look()

    def messages_lost(self) -> None:
        if not self._is_stopped:
            self._parts.owner.messages_lost(self.member_id)

    def told_removed(self) -> None:
        if not self._is_stopped:
            self._parts.owner.told_removed()

    def _look(self) -> None:
        """Note whether messages flow both ways; with one direction alone nothing is agreed on."""
        dialler = self._diallers.get(STREAM_MESSAGE)
        is_connected = (
            STREAM_MESSAGE in self._outlets and dialler is not None and dialler.state == ATTACHED
        )
        if not is_connected:
            self.stats.disconnects += self.connected_since_ms is not None
            self.connected_since_ms = None
        elif self.connected_since_ms is None:
            self.connected_since_ms = int(self._parts.clock.seconds() * 1000)
