"""Maintenance.Snapshot: chunks and a seal, at the client's pace, and nothing left behind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from etcdtw.grpc.call import SERVER_STREAM, MethodTable
from etcdtw.rpc.maintenance.snapshot import (
    CHUNK_SIZE,
    QUEUED_BYTES_MAX,
    SLICE_SIZE,
    STALLED,
    STALLED_S,
    STREAMS_MAX,
    SnapshotService,
)
from etcdtw.storage.snapshot.export import SnapshotExport
from etcdtw.storage.snapshot.snapshots import EXPORTS_MAX
from etcdtw.wire import etcdserverpb as pb
from tests.support.fake_facade import FakeFacade
from tests.support.recorded_call import RecordedCall

OK = (0, "")
TOO_MANY = (2, "etcdserver: too many requests")
CANCELLED = (1, "context canceled")


class Members:
    storage_version = "3.7.0"


class Exports:
    """Exports that the test finishes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.versions: list[str] = []
        self.waiting: list[Callable[[Path, SnapshotExport | str], None]] = []

    def export(
        self, done: Callable[[Path, SnapshotExport | str], None], storage_version: str = ""
    ) -> None:
        self.versions.append(storage_version)
        self.waiting.append(done)

    def dispose(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def finish(self, octets: bytes, size: int | None = None) -> None:
        path = self.folder / "1.out.db"
        path.write_bytes(octets)
        found = SnapshotExport(len(octets) if size is None else size, 7, 1, b"")
        self.waiting.pop(0)(path, found)

    def refuse(self, why: str) -> None:
        self.waiting.pop(0)(self.folder / "none", why)


class SnapshotRig(FakeFacade):
    """A service; with ``holds`` set its threads wait for `release`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.members = Members()
        self.snapshots = Exports(folder)
        self.holds = False
        self.has_threads = True
        self.held: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.service = SnapshotService(self, self.offload)
        methods = MethodTable()
        self.service.register(methods)
        method = methods.find(b"/etcdserverpb.Maintenance/Snapshot")
        assert method is not None
        assert method.kind == SERVER_STREAM
        assert method.opened is not None
        self.opened = method.opened

    def offload(self, function: Callable[[], Any], /) -> Deferred[Any]:
        if not self.has_threads:
            raise RuntimeError("can't start new thread")
        if self.holds:
            self.held.append((function, Deferred()))
            return self.held[-1][1]
        try:
            return succeed(function())
        except Exception as error:
            return fail(error)

    def release(self) -> None:
        held, self.held = self.held, []
        for function, result in held:
            result.callback(function())

    def ask(self) -> RecordedCall:
        call = RecordedCall()
        self.opened(call)
        call.receive(b"")
        return call

    def files(self) -> list[Path]:
        return list(self.folder.iterdir())


@pytest.fixture
def rig(tmp_path: Path) -> SnapshotRig:
    return SnapshotRig(tmp_path)


def responses(call: RecordedCall) -> list[pb.SnapshotResponse]:
    return [pb.SnapshotResponse.FromString(message) for message in call.sent]


def octets_of(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(size % 251)


@pytest.mark.parametrize("size", [1, CHUNK_SIZE, CHUNK_SIZE + 1, SLICE_SIZE, 3 * SLICE_SIZE + 5])
def test_the_file_comes_in_chunks_and_is_sealed_with_its_sha256(
    rig: SnapshotRig, size: int
) -> None:
    call = rig.ask()
    octets = octets_of(size)
    rig.snapshots.finish(octets)
    *chunks, seal = responses(call)
    assert b"".join([chunk.blob for chunk in chunks]) == octets
    assert {len(chunk.blob) for chunk in chunks[:-1]} <= {CHUNK_SIZE}
    left = size
    for chunk in chunks:
        left -= len(chunk.blob)
        assert chunk.remaining_bytes == left
    assert (seal.blob, seal.remaining_bytes) == (hashlib.sha256(octets).digest(), 0)
    assert call.status == OK
    assert (rig.files(), rig.service.streams) == ([], 0)
    assert rig.service.snapshot_s.count == 1


def test_every_message_names_the_storage_version_that_the_file_has_and_no_header(
    rig: SnapshotRig,
) -> None:
    call = rig.ask()
    rig.snapshots.finish(b"octets")
    assert rig.snapshots.versions == ["3.7.0"]
    assert [one.version for one in responses(call)] == ["3.7.0", "3.7.0"]
    assert not [one for one in responses(call) if one.HasField("header")]


def test_a_client_that_reads_slowly_pauses_the_reading(rig: SnapshotRig) -> None:
    call = rig.ask()
    call.is_slow = True
    octets = octets_of(4 * QUEUED_BYTES_MAX)
    rig.snapshots.finish(octets)
    assert QUEUED_BYTES_MAX < call.queued < QUEUED_BYTES_MAX + 2 * SLICE_SIZE
    rounds = 0
    while call.is_open:
        rounds += 1
        call.queued = 0
        assert call.on_drain is not None
        call.on_drain()
    assert rounds > 1
    assert b"".join([one.blob for one in responses(call)][:-1]) == octets


def test_a_client_that_reads_nothing_for_a_minute_is_given_up(rig: SnapshotRig) -> None:
    call = rig.ask()
    call.is_slow = True
    rig.snapshots.finish(octets_of(4 * QUEUED_BYTES_MAX))
    rig.clock.advance(STALLED_S - 0.1)
    assert call.is_open
    rig.clock.advance(0.1)
    assert call.status == (8, STALLED)
    assert rig.service.streams == 0
    assert rig.clock.getDelayedCalls() == []


def test_a_client_that_reads_a_little_is_waited_for(rig: SnapshotRig) -> None:
    call = rig.ask()
    call.is_slow = True
    rig.snapshots.finish(octets_of(4 * QUEUED_BYTES_MAX))
    for _ in range(5):
        call.queued -= 1
        rig.clock.advance(STALLED_S)
        assert call.status is None


def test_so_many_streams_at_once_and_no_more(rig: SnapshotRig) -> None:
    assert STREAMS_MAX < EXPORTS_MAX, "peers could be left without one"
    calls = [rig.ask() for _ in range(STREAMS_MAX)]
    assert {call.status for call in calls} == {None}
    assert rig.ask().status == TOO_MANY
    rig.snapshots.finish(b"octets")
    assert calls[0].status == OK
    assert rig.ask().status is None


def test_an_aborted_call_holds_its_place_until_its_export_is_gone(rig: SnapshotRig) -> None:
    for _ in range(STREAMS_MAX):
        rig.ask().cancel()
    assert rig.ask().status == TOO_MANY
    rig.snapshots.finish(b"octets")
    assert rig.files() == []
    assert rig.ask().status is None


def test_an_abort_while_the_file_is_read_closes_it_afterwards(rig: SnapshotRig) -> None:
    rig.holds = True
    call = rig.ask()
    rig.snapshots.finish(octets_of(SLICE_SIZE))
    call.cancel()
    assert rig.service.streams == 1
    rig.release()  # the read
    rig.release()  # the close
    assert (call.sent, call.status, rig.service.streams) == ([], CANCELLED, 0)


def test_an_abort_while_the_client_reads_slowly_closes_the_file_at_once(rig: SnapshotRig) -> None:
    call = rig.ask()
    call.is_slow = True
    rig.snapshots.finish(octets_of(4 * QUEUED_BYTES_MAX))
    call.cancel()
    assert (rig.service.streams, rig.clock.getDelayedCalls()) == (0, [])


def test_a_refused_export_fails_the_call_with_its_reason(rig: SnapshotRig) -> None:
    call = rig.ask()
    rig.snapshots.refuse("no space left on device")
    assert call.status == (2, "no space left on device")
    assert rig.service.streams == 0


def test_a_file_that_is_shorter_than_was_said_fails_the_call(rig: SnapshotRig) -> None:
    call = rig.ask()
    rig.snapshots.finish(b"octets", size=7)
    assert call.status == (2, "the file ends after 6 octets of 7")
    assert (rig.files(), rig.service.streams) == ([], 0)


def test_a_file_that_cannot_be_opened_fails_the_call(rig: SnapshotRig) -> None:
    call = rig.ask()
    rig.snapshots.waiting.pop()(rig.folder / "gone", SnapshotExport(1, 7, 1, b""))
    assert call.status is not None
    assert "No such file" in call.status[1]
    assert rig.service.streams == 0


def test_a_request_that_is_no_message_is_refused_and_a_second_one_is_ignored(
    rig: SnapshotRig,
) -> None:
    bad = RecordedCall()
    rig.opened(bad)
    bad.receive(b"\xff")
    assert bad.status is not None
    assert bad.status[0] == 13
    call = rig.ask()
    call.receive(b"")
    assert len(rig.snapshots.waiting) == 1


def test_stream_without_a_thread_to_read_in_fails_and_leaves_nothing(rig: SnapshotRig) -> None:
    rig.has_threads = False
    call = rig.ask()
    rig.snapshots.finish(b"octets")
    assert call.status == (2, "can't start new thread")
    assert (rig.service.streams, rig.files()) == (0, [])
