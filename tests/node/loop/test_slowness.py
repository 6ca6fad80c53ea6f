"""Slow applies: noted once for many, logged once a turn, without values."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from etcdtw.apply.applier import FIELD_PUT
from etcdtw.grpc.call import Call
from etcdtw.mvcc.applied import Applied
from etcdtw.node.loop.turn import APPLY_SLICE_ENTRIES
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import plain
from tests.support.node_rig import NodeRig


@pytest.fixture
def rig() -> NodeRig:
    return NodeRig().start()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []

    @implementer(ILogObserver)
    def observer(event: LogEvent) -> None:
        text = formatEvent(event)
        if "too long" in text:
            fields = {name: event[name] for name in event if not name.startswith("log_")}
            found.append(f"{text} {fields}")

    globalLogPublisher.addObserver(observer)
    yield found
    globalLogPublisher.removeObserver(observer)


def put_that_takes(rig: NodeRig, seconds: float, value: bytes = b"secret") -> None:
    """Propose a put whose apply lets the clock run on; the reactor is held meanwhile."""
    request = pb.PutRequest(key=b"k", value=value)

    def done(call: Call, applied: Applied) -> None:
        rig.clock.rightNow += seconds

    rig.node.propose(FIELD_PUT, request.SerializeToString(), plain(request), rig.call, done)


def test_slow_apply_is_counted_and_logged_without_its_value(rig: NodeRig, lines: list[str]) -> None:
    put_that_takes(rig, 0.25)
    rig.run()
    assert rig.node.slowness.slow_applies_total == 1
    (line,) = lines
    assert line.startswith("apply request took too long ")
    for field in ("'took': '250ms'", "'expected-duration': '100ms'", "'first request': 'put'"):
        assert field in line
    assert "secret" not in "".join(lines)


def test_apply_at_the_bound_is_not_slow(rig: NodeRig, lines: list[str]) -> None:
    put_that_takes(rig, 0.0625)
    rig.run()
    assert (rig.node.slowness.slow_applies_total, lines) == (0, [])


def test_a_slow_apply_ends_its_turn_and_makes_one_line(rig: NodeRig, lines: list[str]) -> None:
    for _ in range(3 * APPLY_SLICE_ENTRIES):
        put_that_takes(rig, 0.001)
    put_that_takes(rig, 0.2)
    for _ in range(2 * APPLY_SLICE_ENTRIES - 1):
        put_that_takes(rig, 0.002)
    rig.run()
    assert rig.node.slowness.slow_applies_total == 2
    assert len([line for line in lines if line.startswith("apply request")]) == 2


def test_flushes_between_the_slices_of_an_append_are_no_apply(rig: NodeRig) -> None:
    pauses_s = [0.25, 0.25]  # of those behind the first and the second slice

    def flush() -> None:
        rig.clock.rightNow += pauses_s.pop() if pauses_s else 0.0

    rig.flusher.on_flush = flush
    for _ in range(3 * APPLY_SLICE_ENTRIES):
        rig.put(b"k")
    rig.run()
    assert pauses_s == []
    assert rig.node.slowness.slow_applies_total == 0
