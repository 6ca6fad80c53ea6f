"""The line of clients: shares, budgets, who goes first; and what connections do in it."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

from twisted.internet.task import Clock

from etcdtw.grpc.server_call import ENDED_MAX
from etcdtw.transport.client.grpc_channel import FRAMES_MAX
from etcdtw.transport.client.http1 import RECEIVED_SIZE_MAX
from etcdtw.transport.client.http1_site import BODIES_AT_ONCE, BodyTurns
from etcdtw.transport.rounds import MORE, MORE_AFTER_PAGES, NO_MORE, SHARE_S, Rounds
from etcdtw.wire.pieces import BUDGET_S
from tests.transport.client.port_rig import Peer, PortRig
from tests.transport.peer.peer_rig import ONE, Member, Question, Wires, settle

STEP_S = SHARE_S / 2


class Iterations(Clock):
    """A clock whose calls for "at once" are made by the next `iterate`, as a reactor does."""

    def iterate(self) -> None:
        due, self.calls = self.calls, []
        later = []
        for call in due:
            if call.getTime() <= self.seconds():
                call.called = 1
                call.func(*call.args, **call.kw)
            else:
                later.append(call)
        self.calls += later


class Work:
    """Time that passes as guests are served."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.clock = Iterations()
        self.served: list[str] = []
        self.rounds = Rounds(self.clock, seconds=lambda: self.now_s)

    def serve(self, name: str, steps: int) -> Guest:
        guest = Guest(self, name, steps)
        self.rounds.serve(guest)
        return guest

    def iterate(self) -> list[str]:
        """One iteration of the reactor; returns who was served in it."""
        self.served.clear()
        self.clock.iterate()
        return list(self.served)


class Guest:
    def __init__(self, work: Work, name: str, steps: int, more: int = MORE) -> None:
        self.work = work
        self.name = name
        self.steps = steps
        self.more = more
        self._waits = False

    def waits(self) -> bool:
        return self._waits

    def serve(self) -> int:
        self.work.now_s += STEP_S
        self.work.served.append(self.name)
        self.steps -= 1
        return self.more if self.steps > 0 else NO_MORE

    def wait(self) -> None:
        self._waits = True

    def go_on(self) -> None:
        self._waits = False


def test_light_clients_are_served_at_once_and_cost_no_timer() -> None:
    work = Work()
    for i in range(5):
        assert not work.serve(f"g{i}", 1).waits()
    assert len(work.served) == 5
    assert work.clock.getDelayedCalls() == []


def test_what_light_clients_used_in_earlier_iterations_makes_nobody_wait() -> None:
    work = Work()
    for i in range(3 * int(BUDGET_S / STEP_S)):
        assert not work.serve(f"g{i}", 1).waits()
        if i % 5 == 4:
            work.rounds.renew()
    assert work.clock.getDelayedCalls() == []


def test_a_round_that_is_due_keeps_count_of_its_iteration() -> None:
    work = Work()
    heavy = work.serve("heavy", 30)
    assert heavy.waits()
    work.iterate()
    while not work.serve("light", 1).waits():
        work.rounds.renew()
    assert work.now_s < 3 * BUDGET_S


def test_who_asks_for_more_than_a_share_waits_behind_itself() -> None:
    work = Work()
    heavy = work.serve("heavy", 8)
    assert work.served == ["heavy"] * 5  # FIRST_SHARE_S
    assert heavy.waits()
    light = work.serve("light", 1)
    assert not light.waits()
    assert work.iterate() == ["heavy"] * 2
    assert heavy.waits()
    assert work.iterate() == ["heavy"]
    assert not heavy.waits()
    assert work.clock.getDelayedCalls() == []


def test_who_asks_for_pages_has_a_few_of_them_at_a_time() -> None:
    work = Work()
    pages = Guest(work, "pages", 3, MORE_AFTER_PAGES)
    work.rounds.serve(pages)
    assert work.served == ["pages"]
    assert pages.waits()
    assert work.iterate() == ["pages"]
    assert pages.waits()
    assert work.iterate() == ["pages"]
    assert not pages.waits()


def test_when_the_budget_is_spent_everybody_waits_and_new_ones_come_before_heavy_ones() -> None:
    work = Work()
    heavies = [work.serve(f"h{i}", 9) for i in range(5)]
    assert work.now_s >= BUDGET_S
    assert all(heavy.waits() for heavy in heavies)
    work.iterate()  # two had a first share; the others have theirs now
    light = work.serve("light", 1)
    assert light.waits()
    assert work.iterate() == ["light", *(f"h{i}" for i in (2, 3, 4, 0, 1) for _ in range(2))]
    assert not light.waits()
    # The budget of this iteration is spent as well: one that comes now waits.
    assert work.serve("late", 1).waits()
    assert work.iterate()[0] == "late"


def test_heavy_clients_get_on_however_many_new_ones_come() -> None:
    work = Work()
    heavy = work.serve("heavy", 10)
    for _ in range(3):
        for i in range(2 * int(BUDGET_S / STEP_S)):
            work.serve(f"light{i}", 1)
        assert "heavy" in work.iterate()
    assert not heavy.waits()
    while work.clock.getDelayedCalls():
        work.iterate()
    assert work.rounds.waiting == 0


def counting_rounds(clock: Clock) -> Rounds:
    """Return a line whose work takes a share for each step."""
    now_s = itertools.count(SHARE_S, SHARE_S)
    return Rounds(clock, seconds=lambda: next(now_s))


def test_a_packet_of_many_requests_is_served_in_pieces_and_reading_stops_meanwhile() -> None:
    rig = PortRig()
    iterations = Iterations()
    rig.port.rounds = counting_rounds(iterations)
    peer = rig.connect()
    peer.begin()
    iterations.iterate()
    many = 6 * FRAMES_MAX
    for _ in range(many):
        peer.call("Hold")
    peer.send()
    assert 0 < len(rig.held) < many
    assert peer.transport.producerState == "producing"
    peer.call("Unary", b"y")
    peer.send()
    assert peer.transport.producerState == "paused"
    seen = len(rig.held)
    other = rig.connect()
    other.begin()
    other.call("Unary", b"x")
    other.send()
    while len(rig.held) < many:
        iterations.iterate()
        assert len(rig.held) - seen <= 2 * FRAMES_MAX
        seen = len(rig.held)
    for _ in range(4):
        iterations.iterate()
    assert peer.transport.producerState == "producing"
    rig.clock.advance(0)
    other.grpc.receive(other.transport.read(), 0)
    assert other.results == [(b"x", 0, "")]


def test_of_a_packet_of_pages_one_is_answered_before_others_have_their_turn() -> None:
    rig = PortRig()
    iterations = Iterations()
    rig.port.rounds = Rounds(iterations, seconds=lambda: 0.0)  # whatever there is, time is left
    peer = rig.connect()
    peer.begin()
    fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/health"))
    for _ in range(100):
        peer.http2.send_headers(peer.http2.open_stream(), fields, True)
    peer.send()
    answered = 0
    channel = peer.protocol.channel
    assert channel is not None
    for _ in range(101):
        channel.flush_output()
        some = peer.transport.read().count(b'{"health":"true"')
        assert some <= 1
        answered += some
        iterations.iterate()
    assert answered == 100


def test_octets_that_come_in_spite_of_the_pause_keep_their_order() -> None:
    rig = PortRig()
    rig.port.rounds = counting_rounds(rig.clock)
    peer = rig.connect()
    peer.begin()
    rig.clock.pump([0.0] * 4)
    for i in range(30):
        peer.call("Unary", b"%d" % i)
        peer.send()
    rig.clock.pump([0.0] * 30)
    peer.exchange()
    assert [message for message, _, _ in peer.results] == [b"%d" % i for i in range(30)]


def test_a_connection_that_is_lost_in_line_is_not_served() -> None:
    rig = PortRig()
    rig.port.rounds = counting_rounds(rig.clock)
    peer = rig.connect()
    peer.begin()
    rig.clock.pump([0.0] * 4)
    for _ in range(6 * FRAMES_MAX):
        peer.call("Hold")
    peer.send()
    seen = len(rig.held)
    peer.lose()
    rig.clock.pump([0.0] * 30)
    assert len(rig.held) == seen
    assert rig.port.rounds.waiting == 0


GET = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"


def test_pipelined_http_1_requests_take_turns() -> None:
    rig = PortRig()
    rig.port.rounds = counting_rounds(rig.clock)
    peer = rig.connect()
    peer.protocol.dataReceived(GET * 50)
    answered = peer.transport.value().count(b"HTTP/1.1 200 OK")
    assert 0 < answered < 20
    rig.clock.pump([0.0] * 100)
    assert peer.transport.value().count(b"HTTP/1.1 200 OK") == 50


def test_the_next_http_1_answer_waits_until_the_ones_before_are_read() -> None:
    rig = PortRig()
    peer = rig.connect(room=10)
    peer.protocol.dataReceived(GET * 3)
    for _ in range(3):
        rig.clock.pump([0.0] * 10)
        assert peer.transport.read().count(b"HTTP/1.1 200 OK") == 1
    assert peer.transport.read() == b""


def test_http_1_requests_that_wait_are_bounded_and_reading_goes_on_afterwards() -> None:
    rig = PortRig()
    peer = rig.connect(room=10)
    count = RECEIVED_SIZE_MAX // len(GET) + 100
    peer.protocol.dataReceived(GET * count)
    assert peer.transport.producerState == "paused"
    answered = 0
    while data := peer.transport.read():
        answered += data.count(b"HTTP/1.1 200 OK")
        rig.clock.pump([0.0] * 10)
    assert answered == count
    assert peer.transport.producerState == "producing"


def test_requests_with_bodies_may_be_pipelined() -> None:
    rig = PortRig()
    peer = rig.connect()
    post = b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
    peer.protocol.dataReceived(post + b"abc" + GET + post + b"def" + GET)
    peer.protocol.dataReceived(GET)
    answers = peer.transport.value()
    assert answers.count(b"HTTP/1.1 200 OK") == 5
    assert answers.index(b"abc") < answers.index(b"def")


def test_pipelined_requests_to_the_peer_port_take_turns(tmp_path: Path) -> None:
    one = Member(Wires(Clock()), ONE, tmp_path)
    iterations = Iterations()
    one.port.rounds = counting_rounds(iterations)
    question = Question(one)
    request = b"GET /raft/probing HTTP/1.1\r\nHost: a\r\n\r\n"
    question.send(request * 20)
    answered = len(question.asker.heads)
    assert 0 < answered < 20
    while len(question.asker.heads) < 20:
        iterations.iterate()
        settle(one.clock)
        assert len(question.asker.heads) - answered <= 2
        answered = len(question.asker.heads)


def wait_for_calls(rig: PortRig, count: int) -> Peer:
    peer = rig.connect()
    peer.begin()
    for _ in range(count):
        peer.call("Hold", timeout_ms=1_000)
    peer.send()
    rig.clock.pump([0.0] * 4)
    assert len(rig.held) == count
    return peer


def test_very_many_overdue_calls_end_in_several_iterations() -> None:
    rig = PortRig()
    count = 3 * ENDED_MAX + 1
    wait_for_calls(rig, count)
    iterations = 0
    rig.clock.advance(0.9)
    rig.port.clock = clock = Iterations()
    clock.advance(rig.clock.seconds() + 1.0)
    rig.port._swept()
    left = sum(call.is_open for call in rig.held)
    assert left == count - ENDED_MAX
    while left:
        iterations += 1
        clock.iterate()
        assert left - sum(call.is_open for call in rig.held) <= ENDED_MAX
        left = sum(call.is_open for call in rig.held)
    assert iterations == 3


def test_very_many_calls_of_a_lost_client_end_in_several_iterations() -> None:
    rig = PortRig()
    peer = wait_for_calls(rig, 2 * ENDED_MAX + 1)
    ended: list[int] = []
    for call in rig.held:
        call.on_end = lambda: ended.append(1)
    assert peer.protocol.channel is not None
    peer.protocol.channel._clock = clock = Iterations()
    peer.lose()
    assert len(ended) == ENDED_MAX
    rig.held[-1].reply(b"x" * 1000)
    clock.iterate()
    assert len(ended) == 2 * ENDED_MAX
    clock.iterate()
    assert rig.stats.unread_octets == 0
    assert rig.stats.unfinished_octets == 0
    assert clock.getDelayedCalls() == []


def test_bodies_that_come_at_once_are_read_on_in_turn() -> None:
    clock = Iterations()
    turns = BodyTurns(clock)
    read: list[int] = []
    for i in range(BODIES_AT_ONCE + 1):
        turns.wait(partial(read.append, i))
    clock.iterate()
    assert read == list(range(BODIES_AT_ONCE))
    clock.iterate()
    assert read == list(range(BODIES_AT_ONCE + 1))
    assert not clock.calls
