"""One member as services, in the order they start.

    Supervision       tells systemd how it goes, from the first moment to the last
    Doors             takes the member's addresses, if that was not done before twistd forked
    Storage           asks the cluster who this member is, if it joins; opens the data
    Peering           lets the other members in and connects with them
    MetricsListeners  opens the metrics ports: probes may ask before there is a quorum
    Consensus         ticks; waits until the cluster knows this member and lets it read; hands over
    KeyCheck          compares this member's keys with the others', and ends it if they differ
    Listeners         opens the client ports
    Readiness         says that clients may come

They stop the other way round: clients are let go first, the data is closed last.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import Any, Final, cast

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from etcdtw.config.config import Config
from etcdtw.server.member.member import Member
from etcdtw.server.process.descriptors import ALL_SHARES, DescriptorShares
from etcdtw.server.process.garbage import Collections
from etcdtw.server.process.piece_report import watch_collections
from etcdtw.server.services.consensus import Consensus
from etcdtw.server.services.key_check import KeyCheck
from etcdtw.server.services.listeners import Listeners, MetricsListeners
from etcdtw.server.services.peering import Peering
from etcdtw.server.start.preflight import Taken
from etcdtw.storage.disk.failure import stop_process
from etcdtw.transport.client.port import UnreadTotal

FLUSH_S: Final = 15.0
"""How long a stop waits for the state's writer.  The log holds everything, so nothing is lost
by not waiting longer."""
WRITER_SILENT: Final = "the state's writer does not answer"
SWITCH_INTERVAL_S: Final = 0.0005
"""How long the log's thread waits for a busy reactor at the most, before and after a commit."""


class Storage(Service):
    """The open data directory."""

    name = "storage"

    def __init__(self, member: Member) -> None:
        self._member = member

    def startService(self) -> Deferred[None]:
        super().startService()
        # What was imported lives as long as the process: the collector need not visit it again.
        gc.freeze()
        gc.disable()
        watch_collections(self._member.pieces)
        self._member.supervision.opening()
        opened = Deferred.fromCoroutine(self._member.open())
        return opened.addCallback(self._opened)

    def _opened(self, _: None) -> None:
        self._member.supervision.joining(self._member.node)

    def stopService(self) -> Deferred[None] | None:
        """Bring everything applied to the disk, then let go of it."""
        super().stopService()
        data = self._member.data
        if data is None:
            return None
        flushed: Deferred[None] = Deferred()
        overdue = self._member.clock.callLater(FLUSH_S, stop_process, WRITER_SILENT)
        data.state.flush(lambda: flushed.callback(None))
        flushed.addBoth(lambda _: overdue.cancel())
        flushed.addBoth(lambda _: self._member.snapshot_files.close())
        flushed.addBoth(lambda _: data.close())
        return flushed


class Readiness(Service):
    """Tells people and systemd that the member serves."""

    name = "readiness"
    log = Logger()

    def __init__(self, member: Member) -> None:
        self._member = member

    def startService(self) -> None:
        super().startService()
        # So does what lives now.
        gc.collect()
        gc.freeze()
        now_ms = self._member.node.now_ms
        collections = Collections(gc, time.thread_time_ns, now_ms)
        self._member.node.ticks.follow(collections.look)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self.log.info("ready to serve client requests")
        self._member.supervision.serving()

    def stopService(self) -> None:
        super().stopService()
        self._member.supervision.stopping()


def build_member(
    reactor: Any,
    config: Config,
    unix_ms: Callable[[], int],
    shares: DescriptorShares = ALL_SHARES,
    taken: Taken | None = None,
) -> list[IService]:
    """Return the services of one member; nothing is opened before they start.

    ``taken``: its addresses and keys; None: they are taken by the first service.
    """
    member = Member(reactor, config, unix_ms, shares, taken)
    unread = UnreadTotal(member.call_stats)
    measured = MetricsListeners(member, unread)
    services = [
        member.supervision,
        member.doors,
        Storage(member),
        Peering(member),
        measured,
        Consensus(member),
        KeyCheck(member),
        Listeners(member, unread, measured),
        Readiness(member),
    ]
    return cast("list[IService]", services)
