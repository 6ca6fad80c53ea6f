"""Long reads share each iteration by client; what has no place is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from twisted.internet.task import Clock

from etcdtw.rpc.kv.read_queue import (
    ACTIVE_S,
    LIGHT_S,
    PAUSE_S,
    RUNNING_MAX,
    SHARE_S,
    UNREAD_OCTETS_MAX,
    WAIT_S,
    WAITING_MAX,
    WAITING_OCTETS_MAX,
    ReadQueue,
)
from tests.support.recorded_call import RecordedCall


class OneClient:
    """A connection."""

    def __init__(self) -> None:
        self.unread = 0


class ClientCall(RecordedCall):
    """A call of a connection."""

    def __init__(self, client: OneClient) -> None:
        super().__init__()
        self.client = client


class Task:
    """A read of some pieces, each of which takes a while."""

    def __init__(self, rig: QueueRig, name: str, pieces: int) -> None:
        self.rig = rig
        self.name = name
        self.pieces = pieces
        self.is_blocked = False
        self.is_broken = False
        self.error: Exception | None = None

    def step(self) -> bool:
        if self.is_broken:
            _break()
        self.rig.log.append(self.name)
        self.rig.clock.rightNow += self.rig.piece_s
        self.pieces -= 1
        return self.pieces > 0

    def start(self) -> None:
        pass

    def give_up(self, error: Exception) -> None:
        self.error = error


class QueueRig:
    """A queue and a log of what was worked on.  Pieces take no time at first."""

    def __init__(self, share_s: float = 0, **bounds: Any) -> None:
        self.clock = Clock()
        self.piece_s = 0.0
        self.log: list[str] = []
        self.queue = ReadQueue(self.clock, share_s, **bounds)

    def begin(self, name: str, pieces: int) -> Task:
        return Task(self, name, pieces)

    def add(self, client: OneClient, name: str, pieces: int = 1, size: int = 0) -> bool:
        return self.queue.add(ClientCall(client), size, partial(self.begin, name, pieces))

    def work(self) -> list[str]:
        """One iteration; `Clock.advance` would take those that it asks for as well."""
        self.log.clear()
        for delayed in self.clock.calls[:1]:
            if delayed.getTime() > self.clock.seconds():
                break
            self.clock.calls.remove(delayed)
            delayed.called = 1
            delayed.func(*delayed.args, **delayed.kw)
        return list(self.log)


def test_clients_with_work_take_turns_whatever_each_asked_for() -> None:
    rig = QueueRig()
    greedy, other = OneClient(), OneClient()
    for _ in range(20):
        rig.add(greedy, "greedy", 50)
    rig.add(other, "other", 5)
    rounds = [rig.work() for _ in range(60)]
    names = [name for names in rounds for name in names]
    assert names[: names.index("other") + 10].count("other") == 5


def test_a_client_waits_behind_itself() -> None:
    rig = QueueRig()
    client = OneClient()
    for i in range(RUNNING_MAX + 1):
        rig.add(client, str(i), 3)
    names = [name for _ in range(30) for name in rig.work()]
    assert sorted(names) == sorted([str(i) for i in range(RUNNING_MAX + 1)] * 3)
    # The last one begins when another has ended.
    assert names.index(str(RUNNING_MAX)) > names.index("0") + 2 * RUNNING_MAX


def test_an_iteration_ends_with_the_piece_that_uses_up_its_share() -> None:
    rig = QueueRig(SHARE_S)
    rig.piece_s = SHARE_S / 4
    rig.add(OneClient(), "a", 100)
    assert rig.work() == ["a"] * 4
    rig.piece_s = SHARE_S * 3
    assert rig.work() == ["a"]


def test_a_pause_follows_each_share_while_others_are_served() -> None:
    rig = QueueRig()
    activity = [0]
    rig.queue = ReadQueue(rig.clock, 0, activity=lambda: activity[0])
    rig.add(OneClient(), "a", 100)
    assert [rig.work() for _ in range(3)] == [[], ["a"], ["a"]]
    activity[0] += 1
    assert rig.work() == ["a"]
    assert rig.work() == []
    rig.clock.advance(PAUSE_S)
    assert rig.log == ["a"]
    rig.clock.rightNow += ACTIVE_S
    assert [rig.work() for _ in range(3)] == [["a"]] * 3


def test_a_share_gives_way_to_a_turn_that_is_due_in_every_other_iteration() -> None:
    rig = QueueRig()
    is_due = [True]
    rig.queue = ReadQueue(rig.clock, 0, is_turn_due=lambda: is_due[0])
    rig.add(OneClient(), "a", 100)
    rig.queue.spend(LIGHT_S)
    spent = [rig.queue.is_light_spent]
    assert rig.work() == []
    assert [*spent, rig.queue.is_light_spent] == [True, False]
    assert rig.work() == []  # it is begun
    assert [rig.work() for _ in range(4)] == [[], ["a"], [], ["a"]]
    is_due[0] = False
    assert [rig.work() for _ in range(3)] == [["a"]] * 3


def test_nothing_is_left_when_all_is_read() -> None:
    rig = QueueRig()
    rig.add(OneClient(), "a", 2)
    for _ in range(5):
        rig.work()
    assert (rig.clock.calls, rig.queue._clients, list(rig.queue._ring)) == ([], {}, [])
    assert (rig.queue._count, rig.queue._octets) == (0, 0)


def test_what_is_blocked_is_looked_at_again_and_stands_in_nobodys_way() -> None:
    rig = QueueRig()
    client = OneClient()
    stuck, free = rig.begin("stuck", 1), rig.begin("free", 2)
    stuck.is_blocked = True
    assert rig.queue.go_on(ClientCall(client), stuck)
    assert rig.queue.go_on(ClientCall(client), free)
    assert [name for _ in range(6) for name in rig.work()] == ["free", "free"]
    assert [call.getTime() for call in rig.clock.calls] == [WAIT_S]
    stuck.is_blocked = False
    rig.queue.wake()
    assert rig.work() == ["stuck"]


def test_a_client_that_does_not_read_gets_no_new_answers() -> None:
    rig = QueueRig()
    client = OneClient()
    client.unread = UNREAD_OCTETS_MAX + 1
    rig.add(client, "a")
    rig.work()
    assert rig.work() == []
    client.unread = UNREAD_OCTETS_MAX
    rig.clock.advance(WAIT_S)
    assert rig.log == ["a"]


@pytest.mark.parametrize(
    ("sizes", "is_taken"),
    [
        ([0] * (WAITING_MAX - 1), True),
        ([0] * WAITING_MAX, False),
        ([WAITING_OCTETS_MAX - 1], True),
        ([WAITING_OCTETS_MAX], False),
    ],
)
def test_a_client_has_so_many_places(sizes: list[int], is_taken: bool) -> None:
    rig = QueueRig()
    client = OneClient()
    for size in sizes:
        assert rig.add(client, "a", 1, size)
    assert rig.add(client, "a", 1, 1) == is_taken
    assert rig.queue.refused_total == (not is_taken)
    assert rig.add(OneClient(), "b", 1, 1)


@pytest.mark.parametrize("bound", ["waiting_max", "waiting_octets_max"])
def test_all_clients_together_have_so_many_places(bound: str) -> None:
    rig = QueueRig(**{bound: 3})
    assert [rig.add(OneClient(), "a", 1, 1) for _ in range(4)] == [True, True, True, False]


def test_reads_are_made_at_once_until_an_iterations_worth_is_spent() -> None:
    rig = QueueRig()
    rig.piece_s = LIGHT_S / 2
    calls = [ClientCall(OneClient()) for _ in range(4)]

    def answer(call: RecordedCall) -> None:
        rig.clock.rightNow += rig.piece_s
        call.reply(b"")

    for call in calls:
        rig.queue.take(call, 1, partial(answer, call))
    assert [call.is_open for call in calls] == [False, False, True, True]
    assert rig.queue.is_light_spent
    for _ in range(4):
        rig.work()
    assert not any(call.is_open for call in calls)
    assert not rig.queue.is_light_spent


def test_a_refused_read_is_told() -> None:
    rig = QueueRig()
    client = OneClient()
    for _ in range(WAITING_MAX):
        rig.add(client, "a")
    task = rig.begin("b", 1)
    rig.queue.take(ClientCall(client), 1, lambda: task)
    assert str(task.error) != "None"
    rig.queue.spend(LIGHT_S)
    call = ClientCall(client)
    rig.queue.take(call, 1, lambda: task)
    assert call.status is not None
    assert call.status[1] == "etcdserver: too many requests"


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_read_that_breaks_is_ended_and_others_go_on(is_begun: bool) -> None:
    rig = QueueRig()
    client = OneClient()
    call = ClientCall(client)
    broken = rig.begin("broken", 1)
    broken.is_broken = True
    if is_begun:
        rig.queue.go_on(call, broken)
    else:
        rig.queue.add(call, 0, _break)
    rig.add(client, "other")
    assert [name for _ in range(5) for name in rig.work()] == ["other"]
    assert (broken.error is not None) == is_begun
    assert call.is_open == is_begun


def _break() -> None:
    raise ValueError("a defect")


def test_what_is_done_for_several_clients_stands_in_line_as_one_of_them() -> None:
    rig = QueueRig()
    one = OneClient()
    rig.add(one, "a", pieces=3)
    shared = rig.begin("shared", 2)
    rig.queue.work_on(shared)
    rig.clock.pump([0] * 7)
    assert rig.log == ["shared", "a", "shared", "a", "a"]
    rig.queue.work_on(broken := rig.begin("broken", 2))
    broken.is_broken = True
    rig.clock.pump([0])
    rig.clock.pump([0] * 4)
    assert broken.error is not None
    assert not rig.clock.getDelayedCalls()
