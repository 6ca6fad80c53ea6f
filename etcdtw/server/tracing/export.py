"""The exporter of traces as a service, and whether it can be one here.

OpenTelemetry (the extra ``tracing``) is imported, and its thread runs, only where somebody asks
for traces, and not before the member starts: twistd forks first.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from etcdtw.config.config import Tracing
from etcdtw.rpc.tracing.seams import Tracer

STOP_S: Final = 5.0
"""How long a stop waits until what is left is sent."""
COMPLAINT_S: Final = 60.0
"""Between two log lines about a collector that takes nothing."""
LIBRARIES: Final = ("opentelemetry", "grpc")
NEEDS_EXTRA: Final = (
    "--enable-distributed-tracing needs OpenTelemetry: pip install 'etcdtw[tracing]'"
)


class TracingError(Exception):
    """Traces cannot be made; the text says what to do."""


def check_tracing(tracing: Tracing | None, find: Callable[[str], object] = find_spec) -> None:
    """Raise `TracingError` where traces are wanted and the extra is not installed.

    ``find`` returns None for a library that is not there.
    """
    if tracing is not None and any(find(name) is None for name in LIBRARIES):
        raise TracingError(NEEDS_EXTRA)


class TraceExport(Service):
    """Sends the spans of one member; ``reactor`` has threads."""

    name = "tracing"
    log = Logger()

    def __init__(self, tracing: Tracing, clock: IReactorTime, reactor: Any) -> None:
        self._tracing = tracing
        self._clock = clock
        self._reactor = reactor
        self._library: Any = None
        self._complained_s = -COMPLAINT_S

    def startService(self) -> Deferred[Tracer]:
        """Give what makes spans."""
        super().startService()
        # Children are made by fork and exec: gRPC need not prepare for that, nor say it cannot.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        complaints = logging.getLogger(LIBRARIES[0])
        complaints.addHandler(_Complaints(self._heard))
        complaints.propagate = False
        self._library = import_module("etcdtw.server.tracing.library").Library(self._tracing)
        self.log.info("distributed tracing setup enabled", address=self._tracing.address)
        return succeed(self._library)

    def stopService(self) -> Deferred[None] | None:
        """Send what is left, and wait for that a while."""
        super().stopService()
        library, self._library = self._library, None
        if library is None:
            return None
        done: Deferred[None] = Deferred()
        overdue = self._clock.callLater(STOP_S, done.callback, None)

        def over() -> None:
            if overdue.active():
                overdue.cancel()
                done.callback(None)

        def shut_down() -> None:
            library.shut_down()
            self._reactor.callFromThread(over)

        self._reactor.callInThread(shut_down)
        return done

    def _heard(self, text: str) -> None:
        """Say what the exporter's thread says, now and then."""
        self._reactor.callFromThread(self._complain, text)

    def _complain(self, text: str) -> None:
        now_s = self._clock.seconds()
        if now_s - self._complained_s >= COMPLAINT_S:
            self._complained_s = now_s
            self.log.warn("traces export", error=text)


class _Complaints(logging.Handler):
    """Passes on what a library logs."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        self._hear(record.getMessage())
