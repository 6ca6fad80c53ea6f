"""The ticking node as a service: it publishes this member, and hands over when it stops."""

from __future__ import annotations

from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from etcdtw.cluster.ids import id_text
from etcdtw.node.duties.publication import Publication
from etcdtw.node.node import Node

LOOK_S: Final = 0.01
"""Between two looks at whether this member is published, or has handed over."""
WAITING_S: Final = 5.0
"""After so long without a leader a start says what it waits for."""
WAITING_MAX_S: Final = 300.0
"""Between two such lines; each comes after twice the time of the one before."""


class Consensus(Service):
    """Starts and stops the node.

    Its start is over when the cluster knows this member's name and client URLs, and lets it
    read: then there is a leader, and everything before is applied here.
    """

    name = "consensus"
    log = Logger()

    def __init__(self, node: Node, clock: IReactorTime, publication: Publication) -> None:
        self._node = node
        self._clock = clock
        self._publication = publication
        self._is_published: Deferred[None] | None = None
        self._looking: IDelayedCall | None = None
        self._waiting: IDelayedCall | None = None

    def startService(self) -> Deferred[None]:
        """Start; the result fires when the cluster knows this member's name and URLs."""
        super().startService()
        node = self._node
        self.log.info(
            "starting member {member} of cluster {cluster} at applied index {applied}",
            member=id_text(node.member_id),
            cluster=id_text(node.cluster_id),
            applied=node.applied_index,
        )
        self._is_published = Deferred(lambda _: None)
        node.start()
        self._wait(WAITING_S)
        self._look()
        return self._is_published.addBoth(self._waited)

    def _wait(self, seconds: float) -> None:
        self._waiting = self._clock.callLater(seconds, self._tell, seconds)

    def _tell(self, seconds: float) -> None:
        """Say that nobody leads: with fewer than a quorum a member waits for ever."""
        node = self._node
        if not node.leader_id:
            others = node.standing.others()
            self.log.warn(
                "waiting for a leader at term {term}: {reached} of {count} other members are "
                "connected, and a majority of all members must vote",
                term=node.term,
                reached=sum(node.connected_since(one.member_id) is not None for one in others),
                count=len(others),
            )
        self._wait(min(2 * seconds, WAITING_MAX_S))

    def _waited(self, result: object) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _look(self) -> None:
        """Publish, and when the cluster knows this member, read as a client would."""
        self._looking = None
        if self._is_published is None:
            return
        node = self._node
        if self._publication.look(node.now_ms):
            node.linearize(self._read)
        else:
            self._looking = self._clock.callLater(LOOK_S, self._look)

    def _read(self, error: Exception | None) -> None:
        waiting = self._is_published
        if waiting is None or waiting.called:
            return
        if error is None:
            waiting.callback(None)
        else:
            self._look()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._is_published = None
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self._waited(None)
        await self._hand_over()
        self._node.stop()

    async def _hand_over(self) -> None:
        """Let another member lead before this one goes: nobody waits for an election then."""
        node = self._node
        target = node.transfers.hand_over()
        if target is None:
            return
        self.log.info("handing the leadership over to {target}", target=id_text(target))
        clock = self._clock
        # One election timeout is what Raft gives a transfer; etcd waits for as long.
        until_s = clock.seconds() + node.config.election_timeout_ms / 1000
        while node.is_leader and clock.seconds() < until_s:
            pause: Deferred[None] = Deferred()
            clock.callLater(LOOK_S, pause.callback, None)
            await pause
