"""Snapshots that arrive at the peer port: spooled, handed over, refused, given up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from etcdtw.raft.entry import ConfState, Snapshot
from etcdtw.raft.message import MSG_SNAP, Message
from etcdtw.rafthttp.codec import encode_message
from etcdtw.rafthttp.headers import request_headers
from etcdtw.rafthttp.http import LAST_CHUNK, encode_chunk, encode_request
from etcdtw.transport.peer.snapshot_out import run_here
from etcdtw.transport.peer_port.snapshot_in import (
    FILE_SIZE_MAX,
    MESSAGE_SIZE_MAX,
    WRITE_SIZE,
    SnapshotIntake,
)
from tests.transport.peer.peer_rig import (
    ONE,
    THREE,
    TWO,
    Member,
    NotingReceiver,
    Question,
    Wires,
    heartbeat,
    identity_of,
    pass_time,
    settle,
    url_of,
)


@pytest.fixture
def one(tmp_path: Path) -> Member:
    """Member `ONE`, which knows `TWO` as a peer; nobody listens there."""
    member = Member(Wires(Clock()), ONE, tmp_path)
    member.network.set_peer(TWO, [url_of(TWO)])
    return member


def snapshot_message(index: int = 7, to: int = ONE, from_id: int = TWO) -> Message:
    return Message(
        MSG_SNAP,
        to=to,
        from_id=from_id,
        term=2,
        snapshot=Snapshot(index, 2, ConfState((ONE, TWO)), b"{}"),
    )


def snapshot_head() -> bytes:
    headers = [*request_headers(identity_of(TWO)), ("Transfer-Encoding", "chunked")]
    return encode_request("POST", "/raft/snapshot", "h", headers)


def framed(m: Message) -> bytes:
    octets = encode_message(m)
    return pack(">Q", len(octets)) + octets


def chunks(data: bytes, size: int = 100_000) -> bytes:
    return b"".join(encode_chunk(data[i : i + size]) for i in range(0, len(data), size))


@pytest.mark.parametrize("size", [0, 1, WRITE_SIZE, WRITE_SIZE + 1, 3 * WRITE_SIZE + 17])
def test_a_snapshot_is_spooled_and_handed_over(one: Member, size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    question = Question(one)
    question.send(snapshot_head() + chunks(framed(snapshot_message()) + data) + LAST_CHUNK)
    ((m, path),) = one.receiver.installed
    assert m.snapshot is not None
    assert (m.snapshot.index, m.snapshot.data) == (7, b"{}")
    assert Path(path).name == "0000000000000007.snap.db"
    assert Path(path).read_bytes() == data
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert [p.name for p in Path(path).parent.iterdir()] == [Path(path).name]
    assert question.asker.heads[0].status == 204
    assert question.ask("GET", "/echo")[0] == 200


def test_the_answer_to_a_snapshot_waits_for_the_member(one: Member) -> None:
    installed: Deferred[None] = Deferred()
    one.receiver.install = lambda: installed
    question = Question(one)
    question.send(snapshot_head() + chunks(framed(snapshot_message()) + b"db") + LAST_CHUNK)
    assert question.asker.heads == []
    pass_time(one.clock, 100.0, 1.0)
    installed.callback(None)
    settle(one.clock)
    assert question.asker.heads[0].status == 204


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"", 400, "failed to decode raft message (EOF)"),
        (pack(">Q", 10), 400, "failed to decode raft message (EOF)"),
        (b"\0\0\0", 400, "failed to decode raft message (unexpected EOF)"),
        (pack(">Q", 10) + b"abc", 400, "failed to decode raft message (unexpected EOF)"),
        (
            pack(">Q", MESSAGE_SIZE_MAX + 1),
            400,
            "failed to decode raft message (rafthttp: error limit exceeded)",
        ),
        (
            pack(">Q", 2) + b"\x08\x80",
            400,
            "failed to decode raft message (2 octets are no raftpb.Message)",
        ),
        (framed(heartbeat(ONE, TWO)), 400, "wrong raft message type"),
        (
            framed(snapshot_message(to=THREE)),
            500,
            "failed to process raft message (cannot process message to mismatch member c3)",
        ),
        (
            framed(snapshot_message(from_id=THREE)),
            500,
            "failed to process raft message (cannot process message of c3 from b2)",
        ),
    ],
)
def test_bad_snapshots_are_refused_in_words(
    one: Member, tmp_path: Path, body: bytes, status: int, text: str
) -> None:
    question = Question(one)
    question.send(snapshot_head() + (chunks(body) if body else b"") + LAST_CHUNK)
    assert question.asker.heads[0].status == status
    assert question.asker.bodies == [text.encode() + b"\n"]
    assert list(tmp_path.iterdir()) == []
    assert one.receiver.installed == []
    assert Question(one).ask("GET", "/echo")[0] == 200


def test_a_removed_member_sends_no_snapshot(one: Member) -> None:
    one.receiver.removed_ids.add(TWO)
    question = Question(one)
    question.send(snapshot_head() + chunks(framed(snapshot_message())) + LAST_CHUNK)
    assert question.asker.bodies == [
        b"failed to process raft message (cannot process message from removed member)\n"
    ]


def test_a_snapshot_that_the_member_does_not_take_is_an_error(one: Member) -> None:
    one.receiver.install = lambda: fail(OSError("no room"))
    question = Question(one)
    question.send(snapshot_head() + chunks(framed(snapshot_message()) + b"db") + LAST_CHUNK)
    assert question.asker.heads[0].status == 500
    assert question.asker.bodies == [b"failed to process raft message (no room)\n"]


def test_a_snapshot_that_cannot_be_written_is_an_error(one: Member, tmp_path: Path) -> None:
    one.receiver.directory = tmp_path / "missing"
    question = Question(one)
    question.send(snapshot_head() + chunks(framed(snapshot_message()) + b"db") + LAST_CHUNK)
    assert question.asker.heads[0].status == 500
    assert question.asker.bodies[0].startswith(b"failed to save KV snapshot (No such file")


def test_a_snapshot_that_breaks_off_leaves_nothing(one: Member, tmp_path: Path) -> None:
    question = Question(one)
    question.send(snapshot_head() + chunks(framed(snapshot_message()) + b"x" * 2 * WRITE_SIZE))
    assert len(list(tmp_path.iterdir())) == 1
    question.end.abortConnection()
    settle(one.clock)
    assert list(tmp_path.iterdir()) == []
    assert one.receiver.installed == []


def test_a_snapshot_that_falls_silent_is_given_up(one: Member, tmp_path: Path) -> None:
    question = Question(one)
    question.send(snapshot_head() + chunks(framed(snapshot_message()) + b"x" * 100))
    for _ in range(5):
        pass_time(one.clock, one.port.bounds.silence_s - 0.5)
        question.send(encode_chunk(b"x"))
        assert not question.asker.is_closed
    pass_time(one.clock, one.port.bounds.silence_s + 0.1)
    assert question.asker.is_closed
    assert list(tmp_path.iterdir()) == []


class SlowDisk:
    """An `Offload` whose work is done when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Deferred[Any], Any]] = []

    def __call__(self, function: Callable[[], Any]) -> Deferred[Any]:
        waiting: Deferred[Any] = Deferred()
        self.jobs.append((waiting, function))
        return waiting

    def work(self) -> None:
        waiting, function = self.jobs.pop(0)
        waiting.callback(function())


def test_nothing_is_read_while_the_disk_is_busy(tmp_path: Path) -> None:
    disk = SlowDisk()
    one = Member(Wires(Clock()), ONE, tmp_path, offload=disk)
    one.network.set_peer(TWO, [url_of(TWO)])
    question = Question(one)
    data = b"x" * (5 * WRITE_SIZE)
    question.send(snapshot_head() + chunks(framed(snapshot_message()) + data) + LAST_CHUNK)
    rounds = 0
    while disk.jobs:
        assert len(disk.jobs) == 1
        assert len(question.end.other.incoming) >= max(0, (3 - rounds) * WRITE_SIZE)
        pass_time(one.clock, 20.0, 1.0)  # slower than any silence of the network
        disk.work()
        settle(one.clock)
        rounds += 1
    assert rounds >= 5
    assert Path(one.receiver.installed[0][1]).read_bytes() == data
    assert question.asker.heads[0].status == 204


def test_a_snapshot_given_up_during_a_write_leaves_nothing(tmp_path: Path) -> None:
    for whole in (False, True):
        disk = SlowDisk()
        one = Member(Wires(Clock()), ONE, tmp_path, offload=disk)
        question = Question(one)
        data = b"x" * (2 * WRITE_SIZE)
        end = LAST_CHUNK if whole else b""
        question.send(snapshot_head() + chunks(framed(snapshot_message()) + data) + end)
        if whole:
            while len(disk.jobs[0][1].args) != 5:
                disk.work()
                settle(one.clock)
        assert question.server is not None
        question.end.other.abortConnection()
        settle(one.clock)
        disk.work()
        assert list(tmp_path.iterdir()) == []
        assert one.receiver.installed == []


@pytest.mark.parametrize(("size", "status"), [(100, 204), (101, 500)])
def test_the_size_of_the_file_is_bounded(tmp_path: Path, size: int, status: int) -> None:
    answers: list[tuple[int, str]] = []
    intake = SnapshotIntake(
        NotingReceiver(tmp_path),
        run_here,
        local_id=ONE,
        sender_id=TWO,
        serial=1,
        answer=lambda *answer: answers.append(answer),
        pause=lambda: None,
        resume=lambda: None,
        file_size_max=100,
    )
    intake.feed(framed(snapshot_message()) + b"x" * size)
    intake.end()
    assert answers[0][0] == status
    assert len(list(tmp_path.iterdir())) == (status == 204)
    if status == 500:
        assert answers == [(500, "failed to save KV snapshot (more than 100 octets)")]
    assert FILE_SIZE_MAX >= 8 * 8 << 30


class SmallRoom:
    """A disk that can spare some octets."""

    def __init__(self, octets: int) -> None:
        self.octets = octets

    def take(self, octets: int) -> str:
        if octets > self.octets:
            return "no space left on device: told"
        self.octets -= octets
        return ""

    def give_back(self, octets: int) -> None:
        self.octets += octets


@pytest.mark.parametrize(("size", "status"), [(3 * WRITE_SIZE, 204), (3 * WRITE_SIZE + 1, 500)])
def test_what_the_disk_cannot_spare_is_refused_as_a_failed_save(
    tmp_path: Path, size: int, status: int
) -> None:
    answers: list[tuple[int, str]] = []
    room = SmallRoom(3 * WRITE_SIZE)
    intake = SnapshotIntake(
        NotingReceiver(tmp_path),
        run_here,
        local_id=ONE,
        sender_id=TWO,
        serial=1,
        answer=lambda *answer: answers.append(answer),
        pause=lambda: None,
        resume=lambda: None,
        room=room,
    )
    with capturedLogs() as events:
        intake.feed(framed(snapshot_message()))
        for start in range(0, size, WRITE_SIZE):
            intake.feed(b"x" * min(WRITE_SIZE, size - start))
        intake.end()
    assert answers[0][0] == status
    assert room.octets == 3 * WRITE_SIZE, "what was taken is given back"
    assert len(list(tmp_path.iterdir())) == (status == 204)
    if status == 500:
        why = "no space left on device: told"
        assert answers == [(500, f"failed to save KV snapshot ({why})")]
        (text,) = [formatEvent(event) for event in events]
        assert text == f"the snapshot at index 7 of member {TWO:x} is refused: {why}"


def test_a_reception_that_is_given_up_gives_its_room_back(tmp_path: Path) -> None:
    room = SmallRoom(3 * WRITE_SIZE)
    intake = SnapshotIntake(
        NotingReceiver(tmp_path),
        run_here,
        local_id=ONE,
        sender_id=TWO,
        serial=1,
        answer=lambda *answer: None,
        pause=lambda: None,
        resume=lambda: None,
        room=room,
    )
    intake.feed(framed(snapshot_message()) + b"x" * WRITE_SIZE)
    assert room.octets == 2 * WRITE_SIZE
    intake.abandon()
    assert room.octets == 3 * WRITE_SIZE
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_in_the_middle_is_an_error(tmp_path: Path) -> None:
    disk = SlowDisk()
    one = Member(Wires(Clock()), ONE, tmp_path, offload=disk)
    question = Question(one)
    question.send(snapshot_head() + chunks(framed(snapshot_message()) + b"x" * 2 * WRITE_SIZE))
    disk.jobs.pop(0)[0].errback(OSError("No space left on device"))
    settle(one.clock)
    assert question.asker.bodies == [b"failed to save KV snapshot (No space left on device)\n"]
    assert question.asker.is_closed
    assert list(tmp_path.iterdir()) == []


def test_without_a_thread_for_the_disk_a_snapshot_is_refused(tmp_path: Path) -> None:
    def no_thread(job: Callable[[], Any]) -> Deferred[Any]:
        raise RuntimeError("can't start new thread")

    one = Member(Wires(Clock()), ONE, tmp_path, offload=no_thread)
    question = Question(one)
    question.send(snapshot_head() + chunks(framed(snapshot_message()) + b"x" * 2 * WRITE_SIZE))
    settle(one.clock)
    assert question.asker.bodies == [b"failed to save KV snapshot (can't start new thread)\n"]
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_too_large_for_its_bound_during_a_write_leaves_nothing(tmp_path: Path) -> None:
    disk = SlowDisk()
    answers: list[int] = []
    intake = SnapshotIntake(
        NotingReceiver(tmp_path),
        disk,
        local_id=ONE,
        sender_id=TWO,
        serial=1,
        answer=lambda status, text: answers.append(status),
        pause=lambda: None,
        resume=lambda: None,
        file_size_max=WRITE_SIZE,
    )
    intake.feed(framed(snapshot_message()) + b"x" * WRITE_SIZE)
    intake.feed(b"x")
    assert answers == [500]
    disk.work()
    intake.end()
    assert answers == [500]
    assert list(tmp_path.iterdir()) == []


def test_a_member_that_fails_to_take_a_snapshot_answers(one: Member) -> None:
    def install() -> Deferred[None]:
        raise ZeroDivisionError("a defect")

    one.receiver.install = install
    question = Question(one)
    question.send(snapshot_head() + chunks(framed(snapshot_message()) + b"db") + LAST_CHUNK)
    assert question.asker.bodies == [b"failed to process raft message (a defect)\n"]


def test_a_snapshot_that_was_handed_over_is_the_members(one: Member, tmp_path: Path) -> None:
    installed: Deferred[None] = Deferred()
    one.receiver.install = lambda: installed
    question = Question(one)
    question.send(snapshot_head() + chunks(framed(snapshot_message()) + b"db") + LAST_CHUNK)
    assert question.server is not None
    question.server.drop()
    settle(one.clock)
    installed.callback(None)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"db"]
