"""The last service to start: clients may come."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import Final

from twisted.application.service import Service
from twisted.logger import Logger

from etcdtw.node.loop.ticks import Ticks
from etcdtw.server.process.garbage import Collections
from etcdtw.server.process.supervision import Supervision

SWITCH_INTERVAL_S: Final = 0.0005
"""How long the log's thread waits for a busy reactor at the most, before and after a commit."""


class Readiness(Service):
    """Tells people and systemd that the member serves."""

    name = "readiness"
    log = Logger()

    def __init__(self, supervision: Supervision, ticks: Ticks, time_ms: Callable[[], int]) -> None:
        """``time_ms``: the clock of ``ticks``."""
        self._supervision = supervision
        self._ticks = ticks
        self._time_ms = time_ms

    def startService(self) -> None:
        super().startService()
        # So does what lives now.
        gc.collect()
        gc.freeze()
        self._ticks.follow(Collections(gc, time.thread_time_ns, self._time_ms()).look)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self.log.info("ready to serve client requests")
        self._supervision.serving()

    def stopService(self) -> None:
        super().stopService()
        self._supervision.stopping()
