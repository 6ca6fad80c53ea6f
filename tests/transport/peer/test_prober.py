"""Probes of a peer: how long they take, what the clocks say, and peers that do not answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher

from etcdtw.transport.peer.outlet import STREAM_KINDS
from etcdtw.transport.peer.prober import ANSWER_SIZE_MAX, DRIFT_S, PROBE_S, told_unix_ns
from tests.transport.peer.peer_rig import ONE, TWO, UNIX_NS, Member, Pair, Silent, pass_time, url_of

SECOND_NS = 1_000_000_000
LONG_S = PROBE_S + 1.0


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


@pytest.fixture
def said() -> Iterator[list[tuple[LogLevel, str]]]:
    """Collect what is logged of clocks."""
    found: list[tuple[LogLevel, str]] = []

    def observe(event: LogEvent) -> None:
        text = str(event.get("log_format"))
        if "clock of peer" in text:
            found.append((event["log_level"], text.format(**event)))

    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    yield found
    globalLogPublisher.removeObserver(cast(ILogObserver, observe))


def probes(member: Member, peer_id: int) -> int:
    return member.network.stats()[peer_id].round_trip_s.count


def dialled(pair: Pair, peer_id: int) -> int:
    return len([url for _, url in pair.wires.dialled if url == url_of(peer_id)])


def test_a_peer_is_probed_every_four_seconds_over_one_connection(pair: Pair) -> None:
    assert probes(pair.one, TWO) == 0
    pass_time(pair.clock, 5 * PROBE_S)
    assert probes(pair.one, TWO) == 5
    assert probes(pair.two, ONE) == 5
    assert dialled(pair, TWO) == len(STREAM_KINDS) + 1


@pytest.mark.parametrize("sign", [1, -1])
def test_clocks_that_drift_apart_are_warned_of_once_and_once_more_when_they_do_again(
    pair: Pair, said: list[tuple[LogLevel, str]], sign: int
) -> None:
    pair.two.unix_ns = UNIX_NS + sign * int(DRIFT_S * SECOND_NS)
    pass_time(pair.clock, 2 * PROBE_S)
    assert said == []
    pair.two.unix_ns += sign * 1_000_000
    pass_time(pair.clock, 3 * PROBE_S)
    ahead, behind = ("+1.001", "-1.001") if sign > 0 else ("-1.001", "+1.001")
    advice = "s: synchronize the clocks of all members"
    assert sorted(said) == sorted(
        [
            (LogLevel.warn, f"the clock of peer {TWO:x} differs from ours by {ahead} {advice}"),
            (LogLevel.warn, f"the clock of peer {ONE:x} differs from ours by {behind} {advice}"),
        ]
    )
    said.clear()
    pair.two.unix_ns = UNIX_NS
    pass_time(pair.clock, 3 * PROBE_S)
    assert {level for level, _ in said} == {LogLevel.info}
    assert len(said) == 2
    pair.two.unix_ns = UNIX_NS + 2 * SECOND_NS
    pass_time(pair.clock, 2 * PROBE_S)
    assert len(said) == 4


def test_a_peer_that_is_gone_is_probed_again_when_it_is_back(pair: Pair) -> None:
    pass_time(pair.clock, LONG_S)
    del pair.wires.listeners[url_of(TWO)]
    pair.two.port.close()
    pass_time(pair.clock, 3 * PROBE_S)
    assert probes(pair.one, TWO) == 1
    back = Member(pair.wires, TWO)
    back.network.set_peer(ONE, [url_of(ONE)])
    pass_time(pair.clock, 2 * PROBE_S)
    assert probes(pair.one, TWO) >= 2


@pytest.mark.parametrize("listener", ["hangs", Silent])
def test_a_probe_is_given_up_when_the_next_is_due(pair: Pair, listener: object) -> None:
    pair.wires.listeners[url_of(TWO)] = listener
    dialled_before = dialled(pair, TWO)
    pass_time(pair.clock, 3 * PROBE_S + 0.5)
    assert probes(pair.one, TWO) == 0
    assert dialled(pair, TWO) == dialled_before + 3
    unanswered = [end for end in pair.wires.open_ends() if isinstance(end.other.protocol, Silent)]
    assert len(unanswered) <= 1


class Answering(Silent):
    """Answers every request with the same octets, after a while."""

    def __init__(self, clock: Clock, status: int, body: bytes, after_s: float = 0.0) -> None:
        super().__init__()
        head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
        self.answer = head + body
        self.clock = clock
        self.after_s = after_s

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.clock.callLater(self.after_s, self.transport.write, self.answer)


def test_the_round_trip_is_measured_from_the_request_to_the_answer(pair: Pair) -> None:
    pair.wires.listeners[url_of(TWO)] = lambda: Answering(pair.clock, 200, b"", 0.25)
    pass_time(pair.clock, 2 * PROBE_S + 0.5)
    round_trip_s = pair.one.network.stats()[TWO].round_trip_s
    assert round_trip_s.count == 2
    assert round_trip_s.total == pytest.approx(0.5, abs=0.1)  # two steps of the clock


@pytest.mark.parametrize(
    ("status", "body", "count"),
    [
        (200, b"no json", 1),
        (200, b"[]", 1),
        (200, b'{"Now":7}', 1),
        (200, b"[" * ANSWER_SIZE_MAX, 1),
        (200, b"[" * (ANSWER_SIZE_MAX + 1), 0),
        (404, b"404 page not found\n", 0),
    ],
)
def test_a_strange_answer_harms_nothing(
    pair: Pair, said: list[tuple[LogLevel, str]], status: int, body: bytes, count: int
) -> None:
    pair.wires.listeners[url_of(TWO)] = lambda: Answering(pair.clock, status, body)
    pass_time(pair.clock, LONG_S)
    assert probes(pair.one, TWO) == count
    assert said == []


def test_a_stopped_network_probes_nobody(pair: Pair) -> None:
    pass_time(pair.clock, LONG_S)
    pair.one.network.stop()
    before = probes(pair.two, ONE), dialled(pair, TWO)
    pass_time(pair.clock, 2 * PROBE_S)
    assert dialled(pair, TWO) == before[1]
    assert pair.one.network.stats() == {}


def test_a_stranger_is_not_probed(pair: Pair) -> None:
    pair.one.network.set_remote(0xD4, [url_of(0xD4)])
    pass_time(pair.clock, 2 * PROBE_S)
    assert dialled(pair, 0xD4) == 0


@pytest.mark.parametrize(
    ("text", "unix_ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T02:00:00.123456789+02:00", 123_456_000),
        ("2026-11-25T23:56:49-11:30", 1_795_692_409_000_000_000),
    ],
)
def test_times_are_read_as_go_writes_them(text: str, unix_ns: int) -> None:
    assert told_unix_ns(b'{"OK":true,"Now":"%b"}\n' % text.encode()) == unix_ns


@pytest.mark.parametrize("text", ["", "yesterday", "1970-01-01T00:00:00", "0001-01-01T00:00:00"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert told_unix_ns(b'{"Now":"%b"}' % text.encode()) is None
