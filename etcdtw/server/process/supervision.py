"""What a supervisor is told of a member's life, by sd_notify(3).

    starting --ready--> serving --stop--> stopping
    EXTEND_TIMEOUT      WATCHDOG=1        STOPPING=1
    STATUS=             STATUS=           EXTEND_TIMEOUT

A start may take as long as the log is long, and for ever without a quorum: it extends its time
as long as the event loop runs.  The watchdog hears from the member's tick: a loop that is stuck
says nothing.  Without a supervisor nothing is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from etcdtw.node.facade import Facade
from etcdtw.node.loop.ticks import Ticks
from etcdtw.server.process.readiness import NOTIFY_VARIABLE, READY, notify

EXTEND_EVERY_S: Final = 10.0
EXTEND_S: Final = 120
"""What is granted from one extension to the next."""
OPENING_S: Final = 1800
"""What opening the data may take, during which the loop stands still."""
STATUS_EVERY_MS: Final = 1000
"""Between two looks at whether there is something new to say."""

Send = Callable[[Mapping[str, str], bytes], bool]


class Supervision(Service):
    """Tells whoever started this process how it goes; the first service of a member."""

    name = "supervision"
    log = Logger()

    def __init__(
        self, clock: IReactorTime, environment: Mapping[str, str], send: Send = notify
    ) -> None:
        self._clock = clock
        self._environment = environment
        self._send = send
        self._is_told = bool(environment.get(NOTIFY_VARIABLE))
        self._watchdog_ms = watchdog_interval_ms(environment)
        self._extending: IDelayedCall | None = None
        self._node: Facade | None = None
        self._status = ""
        self._is_deaf = False
        self._pinged_ms = self._looked_ms = 0

    def startService(self) -> None:
        super().startService()
        if self._is_told:
            self._extend()

    def opening(self) -> None:
        """The data is opened next; nothing else happens meanwhile."""
        self._tell(f"EXTEND_TIMEOUT_USEC={OPENING_S * 1_000_000}")
        self._say("opening the data")

    def joining(self, node: Facade, ticks: Ticks) -> None:
        """The data is open; the member waits for the others."""
        self._node = node
        self._say(f"starting at applied index {node.applied_index}")
        if self._is_told or self._watchdog_ms:
            ticks.follow(self.look)

    def serving(self) -> None:
        """Clients may come."""
        self._stop_extending()
        self._tell(READY.decode())

    def stopping(self) -> None:
        """The member stops: clients are let go, the state is brought to the disk."""
        self._node = None
        self._tell("STOPPING=1")
        self._say("stopping")
        if self._is_told and self._extending is None:
            self._extend()

    def stopService(self) -> None:
        super().stopService()
        self._stop_extending()

    def look(self, now_ms: int) -> None:
        """At each tick: the loop lives.  Now and then: has anything changed?"""
        if self._watchdog_ms and now_ms - self._pinged_ms >= self._watchdog_ms:
            self._pinged_ms = now_ms
            self._tell("WATCHDOG=1")
        if now_ms - self._looked_ms >= STATUS_EVERY_MS and self._node is not None:
            self._looked_ms = now_ms
            self._say(_status_of(self._node, is_starting=self._extending is not None))

    def _say(self, status: str) -> None:
        if status != self._status:
            self._status = status
            self._tell(f"STATUS={status}")

    def _extend(self) -> None:
        self._tell(f"EXTEND_TIMEOUT_USEC={EXTEND_S * 1_000_000}")
        self._extending = self._clock.callLater(EXTEND_EVERY_S, self._extend)

    def _stop_extending(self) -> None:
        if self._extending is not None:
            self._extending.cancel()
            self._extending = None

    def _tell(self, message: str) -> None:
        try:
            self._send(self._environment, message.encode())
        except OSError as error:
            if not self._is_deaf:
                self._is_deaf = True
                self.log.warn("the supervisor cannot be told: {why}", why=str(error))


def watchdog_interval_ms(environment: Mapping[str, str]) -> int:
    """Return how often the watchdog wants to hear, twice as often as it must; 0: there is none.

    Source: sd_watchdog_enabled(3).
    """
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    text = environment.get("WATCHDOG_USEC", "")
    return max(int(text) // 2000, 1) if text.isdecimal() and int(text) else 0


def _status_of(node: Facade, *, is_starting: bool) -> str:
    if not node.leader_id:
        return f"waiting for a leader at term {node.term}"
    role = "leader" if node.is_leader else "learner" if node.is_learner else "follower"
    if is_starting:
        return f"{role}: applying entry {node.applied_index} of {node.commit_index}"
    return f"serving as {role} at term {node.term}"
