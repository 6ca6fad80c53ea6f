"""Ordered services against recording children.  No reactor."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.application.service import Application, Service
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.server.process.services import (
    Begin,
    MemberService,
    OrderedService,
    Plan,
    StartError,
    leave_with_status,
)


class Recording(Service):
    """A child that writes down what happens to it, and starts and stops when told."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self._log = log
        self.start_result: Any = None
        self.stop_result: Deferred[None] | Exception | None = None

    def startService(self) -> object:
        self._log.append(f"start {self.name}")
        if isinstance(self.start_result, Exception):
            raise self.start_result
        return self.start_result

    def stopService(self) -> object:
        self._log.append(f"stop {self.name}")
        if isinstance(self.stop_result, Exception):
            raise self.stop_result
        return self.stop_result


def in_order(*children: Recording) -> Plan:
    async def plan(begin: Begin) -> None:
        for child in children:
            await begin(child)

    return plan


class ServiceRig:
    """Three children in order, and the failures that were reported."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.failures: list[tuple[str, str]] = []
        self.a, self.b, self.c = (Recording(name, self.log) for name in "abc")
        self.service = OrderedService(in_order(self.a, self.b, self.c), self.failed, self.given_up)

    def failed(self, name: str, failure: Failure) -> None:
        self.failures.append((name, failure.getErrorMessage()))

    def given_up(self) -> None:
        self.log.append("given up")


@pytest.fixture
def rig() -> ServiceRig:
    return ServiceRig()


def test_children_start_in_order_and_stop_in_reverse(rig: ServiceRig) -> None:
    assert rig.service.startService().called
    assert rig.service.stopService().called
    assert rig.log == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]


def test_child_waits_for_the_one_before(rig: ServiceRig) -> None:
    rig.b.start_result = Deferred()
    done = rig.service.startService()
    assert rig.log == ["start a", "start b"]
    assert not done.called
    rig.b.start_result.callback(None)
    assert rig.log == ["start a", "start b", "start c"]
    assert done.called


def test_stops_wait_for_one_another(rig: ServiceRig) -> None:
    rig.b.stop_result = Deferred()
    rig.service.startService()
    done = rig.service.stopService()
    assert (rig.log[3:], done.called) == (["stop c", "stop b"], False)
    rig.b.stop_result.callback(None)
    assert (rig.log[3:], done.called) == (["stop c", "stop b", "stop a"], True)


def test_failed_start_stops_what_was_started_and_is_reported(rig: ServiceRig) -> None:
    rig.b.start_result = OSError("address in use")
    assert rig.service.startService().called
    assert rig.log == ["start a", "start b", "stop b", "stop a", "given up"]
    assert rig.failures == [("b", "address in use")]
    assert rig.service.stopService().called
    assert rig.log == ["start a", "start b", "stop b", "stop a", "given up"]


def test_start_that_fails_later_is_reported_too(rig: ServiceRig) -> None:
    rig.c.start_result = Deferred()
    rig.service.startService()
    rig.c.start_result.errback(OSError("no"))
    assert rig.log[3:] == ["stop c", "stop b", "stop a", "given up"]
    assert rig.failures == [("c", "no")]


def test_a_child_is_built_from_what_those_before_it_gave(rig: ServiceRig) -> None:
    given: Deferred[object] = Deferred()
    rig.a.start_result = given
    given_to_b: list[object] = []

    async def plan(begin: Begin) -> None:
        given_to_b.append(await begin(rig.a))
        await begin(rig.b)

    OrderedService(plan, rig.failed, rig.given_up).startService()
    assert rig.log == ["start a"]
    given.callback("the data")
    assert (rig.log, given_to_b) == (["start a", "start b"], ["the data"])


def test_what_cannot_be_built_fails_the_start_under_the_name_of_what_it_stands_on(
    rig: ServiceRig,
) -> None:
    async def plan(begin: Begin) -> None:
        await begin(rig.a)
        raise ValueError("a row is damaged")

    assert OrderedService(plan, rig.failed, rig.given_up).startService().called
    assert rig.log == ["start a", "stop a", "given up"]
    assert rig.failures == [("a", "a row is damaged")]


def test_stop_while_a_child_starts_begins_no_other(rig: ServiceRig) -> None:
    class Stopping(Recording):
        def startService(self) -> object:
            super().startService()
            rig.service.stopService()
            return None

    rig.b = Stopping("b", rig.log)
    rig.service = OrderedService(in_order(rig.a, rig.b, rig.c), rig.failed, rig.given_up)
    rig.service.startService()
    assert rig.log == ["start a", "start b", "stop b", "stop a"]
    assert rig.failures == []


def test_stop_during_a_start_cancels_it(rig: ServiceRig) -> None:
    cancelled: list[object] = []
    rig.b.start_result = Deferred(cancelled.append)
    started = rig.service.startService()
    assert rig.service.stopService().called
    assert len(cancelled) == 1
    assert started.called
    assert rig.log == ["start a", "start b", "stop b", "stop a"]
    assert rig.failures == []


def test_stopping_twice_stops_once(rig: ServiceRig) -> None:
    rig.a.stop_result = Deferred()
    rig.service.startService()
    first, second = rig.service.stopService(), rig.service.stopService()
    assert [first.called, second.called] == [False, False]
    rig.a.stop_result.callback(None)
    assert [first.called, second.called] == [True, True]
    assert rig.log.count("stop a") == 1


def test_child_that_cannot_stop_does_not_keep_the_others(rig: ServiceRig) -> None:
    rig.b.stop_result = ValueError("stuck")
    rig.service.startService()
    assert rig.service.stopService().called
    assert rig.log[3:] == ["stop c", "stop b", "stop a"]


@implementer(ILogObserver)
class Events:
    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)


def test_member_service_gives_twistd_its_observer() -> None:
    observer = Events()
    application = Application("etcdtw")
    MemberService(MemoryReactorClock(), in_order(), observer).setServiceParent(application)
    assert application.getComponent(ILogObserver) is observer


def test_member_service_logs_its_warnings_and_ends_the_process_when_it_cannot_start() -> None:
    hooks: list[tuple[object, ...]] = []
    reactor = MemoryReactorClock()
    child = Recording("store", [])
    child.start_result = OSError("disk on fire")
    events = Events()
    globalLogPublisher.addObserver(events)
    try:
        service = MemberService(
            reactor,
            in_order(child),
            events,
            ["careful"],
            lambda *arguments: hooks.append(arguments),
        )
        service.startService()
    finally:
        globalLogPublisher.removeObserver(events)
    formats = [str(event.get("log_format")) for event in events.events]
    assert formats == ["{log_warning}", "the member cannot start"]
    assert [arguments[1] for arguments in hooks] == [1]
    assert len(reactor.whenRunningHooks) == 1


@pytest.mark.parametrize("is_daemon", [True, False])
def test_who_waits_for_a_daemon_hears_of_a_start_that_fails_at_once(is_daemon: bool) -> None:
    child = Recording("store", [])
    child.start_result = OSError("disk on fire")
    service = MemberService(
        MemoryReactorClock(), in_order(child), Events(), (), lambda *_: None, is_daemon=is_daemon
    )
    if is_daemon:
        with pytest.raises(StartError, match="disk on fire"):
            service.startService()
    else:
        service.startService()


def test_leaving_stops_a_running_reactor() -> None:
    hooks: list[tuple[object, ...]] = []
    reactor = MemoryReactorClock()
    reactor.running = True
    leave_with_status(reactor, 3, lambda *arguments: hooks.append(arguments))
    assert reactor.hasStopped
    assert [arguments[1] for arguments in hooks] == [3]
