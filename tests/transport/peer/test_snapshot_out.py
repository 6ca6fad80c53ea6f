"""Snapshots to a peer: taken, refused, stalled, bounded.  No sockets, a fake clock."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from twisted.internet.defer import Deferred, succeed

from etcdtw.raft.entry import ConfState, Snapshot
from etcdtw.raft.message import MSG_SNAP, Message
from etcdtw.transport.peer.network import SNAPSHOTS_MAX
from etcdtw.transport.peer.snapshot_out import ANSWER_S, SLICE_SIZE, STALL_S
from etcdtw.transport.peer_port.server import PeerBounds
from tests.support.peer_messages import same
from tests.transport.peer.peer_rig import (
    ONE,
    THREE,
    TWO,
    Pair,
    Silent,
    WireEnd,
    pass_time,
    settle,
)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def snapshot(to: int = TWO) -> Message:
    return Message(
        MSG_SNAP,
        to=to,
        from_id=ONE,
        term=2,
        snapshot=Snapshot(7, 2, ConfState((ONE, TWO)), b"{}"),
    )


@pytest.mark.parametrize("size", [0, 1, SLICE_SIZE, 5 * SLICE_SIZE + 3])
def test_a_snapshot_is_sent_and_both_sides_are_told(pair: Pair, tmp_path: Path, size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    (tmp_path / "source").write_bytes(data)
    ended: list[bool] = []
    pair.one.network.send_snapshot(snapshot(), str(tmp_path / "source"), size, ended.append)
    assert ended == []
    settle(pair.clock, 100)
    assert ended == [True]
    assert pair.one.receiver.snapshots == [(TWO, True)]
    ((m, path),) = pair.two.receiver.installed
    assert same([m]) == same([snapshot()])
    assert Path(path).read_bytes() == data
    assert len(pair.wires.open_ends()) == 4
    sent = pair.one.network.stats()[TWO]
    received = pair.two.network.stats()[ONE]
    for traffic in (sent.snapshots_out, received.snapshots_in):
        assert (traffic.in_flight, traffic.succeeded, traffic.failed) == (0, 1, 0)
        assert traffic.took_s.count == 1
    assert sent.sent_octets >= size
    assert received.received_octets >= size


class Octets:
    """A snapshot that is no file, and gives no more than some at a time."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.is_stuck = False

    def read(self, wanted: int) -> Deferred[bytes]:
        if self.is_stuck:
            return Deferred()
        given, self.octets = self.octets[: min(wanted, 1000)], self.octets[min(wanted, 1000) :]
        return succeed(given)


@pytest.mark.parametrize(("missing", "is_stuck"), [(0, False), (1, False), (0, True)])
def test_a_snapshot_that_is_no_file_is_sent_as_it_comes_but_not_waited_for_for_ever(
    pair: Pair, missing: int, is_stuck: bool
) -> None:
    source = Octets(b"x" * 3500)
    source.is_stuck = is_stuck
    ended: list[bool] = []
    pair.one.network.send_snapshot(snapshot(), source, 3500 + missing, ended.append)
    settle(pair.clock, 100)
    if is_stuck:
        assert ended == []
        pass_time(pair.clock, STALL_S + 1, 0.5)
    is_sent = not missing and not is_stuck
    assert ended == [is_sent]
    assert [Path(path).read_bytes() for _, path in pair.two.receiver.installed] == (
        [b"x" * 3500] if is_sent else []
    )


def test_a_snapshot_is_waited_for_as_long_as_its_receiver_may_take(
    pair: Pair, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(b"x" * 10)
    building: Deferred[None] = Deferred()
    pair.two.receiver.install = lambda: building
    ended: list[bool] = []
    pair.one.network.send_snapshot(snapshot(), str(tmp_path / "source"), 10, ended.append)
    pass_time(pair.clock, PeerBounds().install_s - 5.0, 1.0)
    assert ended == []
    building.callback(None)
    settle(pair.clock)
    assert ended == [True]


def fail_snapshot(pair: Pair, path: Path, seconds: float, to: int = TWO) -> None:
    ended: list[bool] = []
    pair.one.network.send_snapshot(snapshot(to), str(path), 10, ended.append)
    pass_time(pair.clock, seconds, 0.5)
    assert ended == [False]
    assert pair.one.receiver.snapshots == [(to, False)]
    assert pair.one.receiver.unreachable[-1] == to
    assert pair.two.receiver.installed == []
    stats = pair.one.network.stats().get(to)
    if stats is not None:
        traffic = stats.snapshots_out
        assert (traffic.in_flight, traffic.succeeded, traffic.failed) == (0, 0, 1)
        assert traffic.took_s.count == 0


def test_a_snapshot_to_nobody_fails(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 10)
    fail_snapshot(pair, tmp_path / "source", 0.5, to=THREE)


def test_a_snapshot_whose_file_is_missing_fails(pair: Pair, tmp_path: Path) -> None:
    fail_snapshot(pair, tmp_path / "missing", 0.5)


def test_a_snapshot_whose_file_is_too_short_fails(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 9)
    fail_snapshot(pair, tmp_path / "source", 0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_snapshot_that_is_refused_fails(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 10)
    pair.two.receiver.removed_ids.add(ONE)
    fail_snapshot(pair, tmp_path / "source", 0.5)


@pytest.mark.parametrize("listener", [None, "hangs", Silent])
def test_a_snapshot_to_a_peer_that_does_not_answer_fails(
    pair: Pair, tmp_path: Path, listener: object
) -> None:
    (tmp_path / "source").write_bytes(b"x" * 10)
    pair.wires.listeners["http://three:1"] = listener
    pair.one.network.set_remote(THREE, ["http://three:1"])
    seconds = {None: 0.5, "hangs": STALL_S + 1, Silent: ANSWER_S + 1}[listener]  # type: ignore[index]
    fail_snapshot(pair, tmp_path / "source", seconds, to=THREE)


class Slow(Silent):
    """Reads only when its end is pumped."""

    def connectionMade(self) -> None:
        cast(WireEnd, self.transport).reads = False


def test_a_snapshot_waits_for_a_peer_that_reads_slowly_but_not_for_ever(
    pair: Pair, tmp_path: Path
) -> None:
    size = 20 * SLICE_SIZE
    (tmp_path / "source").write_bytes(b"x" * size)
    pair.wires.listeners["http://slow:1"] = Slow
    pair.one.network.set_remote(THREE, ["http://slow:1"])
    ended: list[bool] = []
    pair.one.network.send_snapshot(snapshot(THREE), str(tmp_path / "source"), size, ended.append)
    settle(pair.clock)
    end = pair.wires.ends[-1].other
    assert 0 < len(end.incoming) < 3 * SLICE_SIZE
    for _ in range(5):
        pass_time(pair.clock, STALL_S - 1, 0.5)
        end.reads = True
        end.pump()
        end.reads = False
        assert 0 < len(end.incoming) < 3 * SLICE_SIZE
    assert ended == []
    pass_time(pair.clock, STALL_S + 1, 0.5)
    assert ended == [False]


def test_snapshots_on_their_way_are_bounded_and_end_with_the_transport(
    pair: Pair, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(b"x" * 10)
    pair.wires.listeners["http://silent:1"] = Silent
    pair.one.network.set_remote(THREE, ["http://silent:1"])
    ended: list[bool] = []
    for _ in range(SNAPSHOTS_MAX + 1):
        pair.one.network.send_snapshot(snapshot(THREE), str(tmp_path / "source"), 10, ended.append)
    settle(pair.clock)
    assert ended == [False]
    pair.one.network.stop()
    pass_time(pair.clock, ANSWER_S + 1, 1.0)
    assert ended == [False]
    assert pair.one.receiver.snapshots == [(THREE, False)]
