"""Services that start one after another and stop the other way round.

Twisted's MultiService starts all at once and stops all at once; a member must open its data
before it listens and stop listening before it closes its data.  And it has all its children at
once, where here each is built from what those before it have given: the order is a coroutine
(ADR 16).
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar, overload

from twisted.application.service import IService, Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorCore
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

EXIT_REMOVED: Final = 77  # EX_NOPERM of sysexits.h
"""The status of a member that its cluster has removed: starting it again is of no use."""
CANNOT_START: Final = "the member cannot start"


_T = TypeVar("_T")


class Gives(Protocol[_T]):
    """A service whose start has a result, for those that are built behind it."""

    def startService(self) -> Deferred[_T]: ...


class Begin(Protocol):
    """Starts a child and waits for it; returns what its start has given."""

    @overload
    def __call__(self, child: Gives[_T], /) -> Awaitable[_T]: ...

    @overload
    def __call__(self, child: IService, /) -> Awaitable[object]: ...


Plan = Callable[[Begin], Coroutine[Any, Any, None]]
"""Begins one child after the other."""


class OrderedService(Service):
    """Children start as ``plan`` begins them and stop last to first, each when the one before is
    done.

    A child's ``startService`` may return a Deferred: the next one waits for it.  When a start
    fails, ``on_failure`` is called once, with the name of the child begun last and the failure;
    then what was started is stopped, and ``on_given_up`` is called.
    """

    log = Logger()

    def __init__(
        self,
        plan: Plan,
        on_failure: Callable[[str, Failure], None],
        on_given_up: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._on_failure = on_failure
        self._on_given_up = on_given_up
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
        try:
            await self._plan(self._begin)
        except CancelledError:
            return
        except Exception:
            self._on_failure(_name_of(self._started[-1] if self._started else self), Failure())
            await self._stop_children()
            self._on_given_up()

    async def _begin(self, child: Any) -> Any:
        # Noted first: a child that fails half way is stopped too.
        self._started.append(child)
        given: object = await maybeDeferred(child.startService)
        if not self.running:
            raise CancelledError
        return given

    async def _stop(self) -> None:
        if self._starting is not None and not self._starting.called:
            self._starting.cancel()
        await self._stop_children()

    async def _stop_children(self) -> None:
        while self._started:
            child = self._started.pop()
            try:
                await maybeDeferred(child.stopService)
            except Exception:
                # The others must still be stopped: data is closed by the last of them.
                self.log.failure("could not stop {service}", service=_name_of(child))


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
        plan: Plan,
        observer: ILogObserver,
        warnings: Sequence[str] = (),
        at_exit: Callable[..., object] = atexit.register,
        *,
        is_daemon: bool = False,
    ) -> None:
        super().__init__(plan, self._fail, self._give_up)
        self._is_daemon = is_daemon
        self._reason = ""
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
            self.log.warn("{log_warning}", log_warning=warning)
        starting = super().startService()
        if self._reason and self._is_daemon:
            # twistd passes it on to the process that forked this one and still waits.
            raise StartError(self._reason)
        return starting

    def _fail(self, service: str, failure: Failure) -> None:
        self._reason = failure.getErrorMessage()
        self.log.critical(CANNOT_START, service=service, error=self._reason)

    def _give_up(self) -> None:
        leave_with_status(self._reactor, 1, self._at_exit)


class StartError(Exception):
    """The member cannot start; says why."""


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
