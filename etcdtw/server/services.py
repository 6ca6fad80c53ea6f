"""Services that start one after another and stop the other way round.

Twisted's MultiService starts all at once and stops all at once; a member must open its data
before it listens and stop listening before it closes its data.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorCore
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure


class OrderedService(Service):
    """Children start first to last and stop last to first, each when the one before is done.

    A child's ``startService`` may return a Deferred: the next one waits for it.  When a start
    fails, what was started is stopped and ``on_failure`` is called once with the failure.
    """

    log = Logger()

    def __init__(self, children: Sequence[IService], on_failure: Callable[[Failure], None]) -> None:
        self._children = tuple(children)
        self._on_failure = on_failure
        self._started: list[IService] = []
        self._starting: Deferred[None] | None = None
        self._stopping: Deferred[None] | None = None

    def startService(self) -> Deferred[None]:
        """Start the children.  The result fires, never fails, when all are up or one failed."""
        assert self._starting is None, "started twice"
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        return self._starting

    def stopService(self) -> Deferred[None]:
        """Stop the children that were started; a start in progress is cancelled first."""
        super().stopService()
        if self._stopping is None:
            self._stopping = Deferred.fromCoroutine(self._stop())
        done: Deferred[None] = Deferred()
        self._stopping.addBoth(_pass_to, done)
        return done

    async def _start(self) -> None:
        for child in self._children:
            try:
                # Noted first: a child that fails half way is stopped too.
                self._started.append(child)
                await _call(child.startService)
            except CancelledError:
                return
            except Exception:
                failure = Failure()
                self.log.error(
                    "could not start {service}: {reason}",
                    service=_name_of(child),
                    reason=failure.getErrorMessage(),
                )
                await self._stop_children()
                self._on_failure(failure)
                return
            if not self.running:
                return

    async def _stop(self) -> None:
        if self._starting is not None and not self._starting.called:
            self._starting.cancel()
        await self._stop_children()

    async def _stop_children(self) -> None:
        while self._started:
            child = self._started.pop()
            try:
                await _call(child.stopService)
            except Exception:
                # The others must still be stopped: data is closed by the last of them.
                self.log.failure("could not stop {service}", service=_name_of(child))


def _call(function: Callable[[], object]) -> Deferred[object]:
    return maybeDeferred(function)


def _pass_to(result: Failure | None, waiting: Deferred[None]) -> Failure | None:
    waiting.callback(None)
    return result


def _name_of(child: IService) -> str:
    return child.name or type(child).__name__


class MemberService(OrderedService):
    """The root of a process: it also decides how twistd logs, and the exit status."""

    def __init__(
        self,
        reactor: IReactorCore,
        children: Sequence[IService],
        observer: ILogObserver,
        warnings: Sequence[str] = (),
        at_exit: Callable[..., object] = atexit.register,
    ) -> None:
        super().__init__(children, self._fail)
        self._at_exit = at_exit
        self._reactor = reactor
        self._observer = observer
        self._warnings = tuple(warnings)

    def setServiceParent(self, parent: Any) -> None:  # noqa: N802 - Twisted's name
        """Give twistd our observer: it asks the application for one before it starts."""
        super().setServiceParent(parent)
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)

    def startService(self) -> Deferred[None]:
        for warning in self._warnings:
            self.log.warn("{warning}", warning=warning)
        return super().startService()

    def _fail(self, failure: Failure) -> None:
        self.log.critical(
            "the member cannot run and stops: {reason}", reason=failure.getErrorMessage()
        )
        leave_with_status(self._reactor, 1, self._at_exit)


def leave_with_status(
    reactor: IReactorCore, status: int, at_exit: Callable[..., object] = atexit.register
) -> None:
    """Stop the reactor in order; then the process ends with ``status``.

    twistd ends with status 0 whatever happened; the last exit hook overrules it, after
    twistd has removed its pid file.
    """
    at_exit(_exit, status)
    # Also right before the reactor runs: services start before it does.
    reactor.callWhenRunning(_stop, reactor)


def _stop(reactor: IReactorCore) -> None:
    if reactor.running:
        reactor.stop()


def _exit(status: int) -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(status)
