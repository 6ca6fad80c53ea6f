"""The exporter of traces as a service, and which calls its library samples."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs

from etcdtw.config.config import Tracing
from etcdtw.grpc.caller import Caller
from etcdtw.server.tracing.export import (
    COMPLAINT_S,
    STOP_S,
    TraceExport,
    TracingError,
    check_tracing,
)
from etcdtw.server.tracing.library import Library
from tests.support.recorded_call import RecordedCall

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


def tracing(samples_per_million: int = 0) -> Tracing:
    return Tracing(
        address="127.0.0.1:1",  # nobody listens there
        service_name="etcd",
        instance_id="",
        samples_per_million=samples_per_million,
    )


class Threads:
    """A reactor's threads: what they are given waits until the test runs it."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def callInThread(self, function: Callable[[], None]) -> None:
        self.waiting.append(function)

    def callFromThread(self, function: Callable[..., None], *args: Any) -> None:
        function(*args)


@pytest.fixture
def export() -> Iterator[tuple[TraceExport, Threads, Clock]]:
    threads, clock = Threads(), Clock()
    service = TraceExport(tracing(), clock, threads)
    library = logging.getLogger("opentelemetry")
    before = list(library.handlers), library.propagate
    yield service, threads, clock
    library.handlers[:], library.propagate = before
    while threads.waiting:
        threads.waiting.pop()()


def test_the_extra_is_asked_for_by_name_where_it_is_missing() -> None:
    check_tracing(None, lambda name: None)
    check_tracing(tracing())
    with pytest.raises(TracingError, match=r"pip install 'etcdtw\[tracing\]'"):
        check_tracing(tracing(), lambda name: None)


def test_a_stop_waits_until_what_is_left_is_sent(
    export: tuple[TraceExport, Threads, Clock],
) -> None:
    service, threads, _ = export
    service.startService()
    stopped = service.stopService()
    assert stopped is not None
    assert not stopped.called
    threads.waiting.pop()()
    assert stopped.called


def test_a_stop_waits_no_longer_than_the_bound(
    export: tuple[TraceExport, Threads, Clock],
) -> None:
    service, threads, clock = export
    service.startService()
    stopped = service.stopService()
    assert stopped is not None
    told = [stopped.called]
    for seconds in (STOP_S - 0.1, 0.1):
        clock.advance(seconds)
        told.append(stopped.called)
    assert told == [False, False, True]
    threads.waiting.pop()()  # what comes too late does no harm


def test_a_service_that_was_not_started_has_nothing_to_stop(
    export: tuple[TraceExport, Threads, Clock],
) -> None:
    assert export[0].stopService() is None


def test_a_collector_that_takes_nothing_is_told_of_now_and_then(
    export: tuple[TraceExport, Threads, Clock],
) -> None:
    service, _, clock = export
    service.startService()
    library = logging.getLogger("opentelemetry.exporter")

    def told() -> list[LogEvent]:
        with capturedLogs() as events:
            library.error("Failed to export traces to %s", "127.0.0.1:1")
        return [event for event in events if event["log_format"] == "traces export"]

    assert told()[0]["error"] == "Failed to export traces to 127.0.0.1:1"
    clock.advance(COMPLAINT_S - 0.1)
    assert told() == []
    clock.advance(0.1)
    assert len(told()) == 1
    service.stopService()


def carried(flags: str) -> RecordedCall:
    call = RecordedCall(traceparent=f"00-{TRACE}-{PARENT}-{flags}")
    call.caller = Caller("::1", "", local="[::1]:2379")
    return call


@pytest.fixture(scope="module", params=[0, 1_000_000])
def library(request: pytest.FixtureRequest) -> Iterator[Library]:
    made = Library(tracing(request.param))
    yield made
    made.shut_down()


def test_the_parent_of_a_call_decides_whether_it_is_sampled(library: Library) -> None:
    assert library.begin("m", carried("01")) is not None
    assert library.begin("m", carried("00")) is None


def test_a_call_without_a_parent_is_sampled_by_the_rate() -> None:
    for rate, is_sampled in ((0, False), (1_000_000, True)):
        library = Library(tracing(rate))
        assert (library.begin("m", RecordedCall()) is not None) == is_sampled
        library.shut_down()


def test_what_is_no_parent_is_none(library: Library) -> None:
    call = RecordedCall(traceparent="no trace at all")
    whole = library.begin("m", RecordedCall()) is not None
    assert (library.begin("m", call) is not None) == whole
