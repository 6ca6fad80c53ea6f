"""The ticking node as a service: it publishes this member, and hands over when it stops."""

from __future__ import annotations

from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from etcdtw.cluster.ids import id_text
from etcdtw.grpc.call import Call
from etcdtw.node.duties.publication import Publication
from etcdtw.node.no_call import NoCall
from etcdtw.server.member import Member

LOOK_S: Final = 0.01
"""Between two looks at whether this member is published, or has handed over."""


class Consensus(Service):
    """Starts and stops the node.

    Its start is over when the cluster knows this member's name and client URLs, and lets it
    read: then there is a leader, and everything before is applied here.
    """

    name = "consensus"
    log = Logger()

    def __init__(self, member: Member) -> None:
        self._member = member
        self._is_published: Deferred[None] | None = None
        self._looking: IDelayedCall | None = None

    def startService(self) -> Deferred[None]:
        """Start; the result fires when the cluster knows this member's name and URLs."""
        super().startService()
        member = self._member
        node = member.node
        self.log.info(
            "starting member {member} of cluster {cluster} at applied index {applied}",
            member=id_text(node.member_id),
            cluster=id_text(node.cluster_id),
            applied=node.applied_index,
        )
        config = member.config
        urls = [str(url) for url in config.advertise_client_urls]
        self._publication = Publication(node.standing, node.members, node.own, config.name, urls)
        self._is_published = Deferred(lambda _: None)
        node.start()
        self._look()
        return self._is_published

    def _look(self) -> None:
        """Publish, and when the cluster knows this member, read as a client would."""
        self._looking = None
        if self._is_published is None:
            return
        node = self._member.node
        if self._publication.look(node.now_ms):
            node.read(NoCall(), self._read)
        else:
            self._looking = self._member.clock.callLater(LOOK_S, self._look)

    def _read(self, call: Call, error: Exception | None) -> None:
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
        await self._hand_over()
        self._member.node.stop()

    async def _hand_over(self) -> None:
        """Let another member lead before this one goes: nobody waits for an election then."""
        node = self._member.node
        target = node.transfers.hand_over()
        if target is None:
            return
        self.log.info("handing the leadership over to {target}", target=id_text(target))
        clock = self._member.clock
        # One election timeout is what Raft gives a transfer; etcd waits for as long.
        until_s = clock.seconds() + node.config.election_timeout_ms / 1000
        while node.is_leader and clock.seconds() < until_s:
            pause: Deferred[None] = Deferred()
            clock.callLater(LOOK_S, pause.callback, None)
            await pause
