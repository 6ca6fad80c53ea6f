"""Takes one snapshot from a peer: the message to memory, what follows it to a file.

The file grows beside its final name and gets that name when it is complete and durable.
Knows no HTTP.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import IO, Final, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from etcdtw.raft.message import MSG_SNAP, Message
from etcdtw.rafthttp.codec import MalformedMessageError, decode_message
from etcdtw.rafthttp.messages import refusal
from etcdtw.rafthttp.stream import Octets
from etcdtw.transport.peer.seams import PeerReceiver
from etcdtw.transport.peer.snapshot_out import Offload
from etcdtw.wire.histogram import Histogram, exponential_bounds

MESSAGE_SIZE_MAX: Final = 64 * 1024 * 1024
"""Octets of the message before the file; etcd's bound."""
FILE_SIZE_MAX: Final = 64 * 1024 * 1024 * 1024
"""Octets of the file: eight times what etcd advises at most."""
WRITE_SIZE: Final = 1024 * 1024
"""Octets that are collected for one write and one flush: flushes of a journal on the same disk
wait for no more."""
FILE_MODE: Final = 0o600


class ReceptionRoom(Protocol):
    """What the disk can spare for files that arrive, all together."""

    def take(self, octets: int) -> str:
        """Count ``octets`` more; return an empty text, or why there is no room for them."""
        ...

    def give_back(self, octets: int) -> None: ...


class EndlessRoom:
    """For tests: a disk that never fills."""

    def take(self, octets: int) -> str:
        return ""

    def give_back(self, octets: int) -> None:
        """Nothing was counted."""


class SnapshotSaves:
    """How long received snapshots took to get to the disk; the bounds are etcd's."""

    def __init__(self) -> None:
        self.fsync_s = Histogram(exponential_bounds(0.001, 14))
        self.save_s = Histogram(exponential_bounds(0.1, 10))


class SnapshotIntake:
    """One snapshot that arrives.

    ``room`` is asked before anything is written.  ``answer`` is called once with a status and a
    text, unless `abandon` comes first.  ``pause`` and ``resume`` stop and start the octets while
    a write is under way.
    """

    log = Logger()

    def __init__(
        self,
        receiver: PeerReceiver,
        offload: Offload,
        *,
        local_id: int,
        sender_id: int | None,
        serial: int,
        answer: Callable[[int, str], None],
        pause: Callable[[], None],
        resume: Callable[[], None],
        room: ReceptionRoom | None = None,
        saves: SnapshotSaves | None = None,
        seconds: Callable[[], float] = lambda: 0.0,
        file_size_max: int = FILE_SIZE_MAX,
    ) -> None:
        self._receiver = receiver
        self._offload = offload
        self._local_id = local_id
        self._sender_id = sender_id
        self._serial = serial
        self._answer = answer
        self._pause = pause
        self._resume = resume
        self._room = room or EndlessRoom()
        self._saves = saves or SnapshotSaves()
        self._seconds = seconds
        self._began_s = seconds()
        self._file_size_max = file_size_max
        self._octets = Octets()  # that were not written
        self._length = -1  # of the message
        self._message: Message | None = None
        self._file: IO[bytes] | None = None
        self._index = 0
        self._path = ""
        self._part = ""
        self._size = 0
        self._taken = 0  # of the room
        self._is_writing = False
        self._is_ended = False
        self._is_last = False  # the write that is under way
        self._is_over = False
        self._installing: Deferred[None] | None = None

    def feed(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self._is_over:
            return
        self._octets.feed(data)
        if self._message is None and not self._read_message():
            return
        if self._size + self._octets.size > self._file_size_max:
            self._fail_saving(f"more than {self._file_size_max} octets")
        elif self._octets.size >= WRITE_SIZE and not self._is_writing:
            self._write()

    def end(self) -> None:
        """The body is complete."""
        if self._is_over:
            return
        self._is_ended = True
        if self._message is None:
            # Go's words for an end between two parts and within one.
            why = "unexpected EOF" if self._octets.size else "EOF"
            self._finish(400, f"failed to decode raft message ({why})")
        elif not self._is_writing:
            self._write()

    def abandon(self) -> None:
        """The connection is gone: forget everything, also what is on disk."""
        self._is_over = True
        if self._installing is not None:
            return  # the receiver has it
        if not self._is_writing:
            self._discard()

    def _read_message(self) -> bool:
        if self._length < 0:
            prefix = self._octets.take(8)
            if prefix is None:
                return False
            self._length = int.from_bytes(prefix, "big")
            if self._length > MESSAGE_SIZE_MAX:
                self._finish(400, "failed to decode raft message (rafthttp: error limit exceeded)")
                return False
        octets = self._octets.take(self._length)
        if octets is None:
            return False
        try:
            m = decode_message(octets)
        except MalformedMessageError as error:
            self._finish(400, f"failed to decode raft message ({error})")
            return False
        return self._begin(m)

    def _begin(self, m: Message) -> bool:
        if m.type != MSG_SNAP or m.snapshot is None:
            self._finish(400, "wrong raft message type")
            return False
        why = refusal(m, self._local_id, self._sender_id, self._receiver)
        if why is not None:
            self._finish(500, f"failed to process raft message ({why})")
            return False
        self._index = m.snapshot.index
        try:
            self._path = self._receiver.snapshot_path(m.snapshot.index)
            self._part = f"{self._path}.{self._serial}.part"
            # Closed by the last write or by `_discard`.
            self._file = open(self._part, "wb", buffering=0, opener=_private)  # noqa: SIM115
        except OSError as error:
            self._fail_saving(error.strerror or str(error))
            return False
        self._message = m
        return True

    def _write(self) -> None:
        """Write what has come; at the end make it durable as well."""
        assert self._file is not None
        why = self._room.take(self._octets.size)
        if why:
            self.log.warn(
                "the snapshot at index {index} of member {peer} is refused: {why}",
                index=self._index,
                peer=f"{self._sender_id or 0:x}",
                why=why,
            )
            self._fail_saving(why)
            return
        data = self._octets.take_all(self._octets.size)
        self._taken += len(data)
        self._size += len(data)
        self._is_writing = True
        if self._is_ended:
            self._is_last = True
            job = partial(_close_durably, self._file, data, self._part, self._path, self._seconds)
        else:
            job = partial(_write_durably, self._file, data, self._seconds)
        self._pause()
        # It may raise at once, where no thread can be started.
        maybeDeferred(self._offload, job).addCallbacks(self._written, self._unwritten)

    def _written(self, took_s: float) -> None:
        self._is_writing = False
        self._saves.fsync_s.observe(took_s)
        if self._is_over:
            self._discard()
        elif self._is_last:
            self._saves.save_s.observe(self._seconds() - self._began_s)
            self._hand_over()
        elif self._is_ended or self._octets.size >= WRITE_SIZE:
            self._write()
        else:
            self._resume()

    def _unwritten(self, failure: Failure) -> None:
        self._is_writing = False
        if self._is_over:
            self._discard()
        else:
            self._fail_saving(failure.getErrorMessage())

    def _hand_over(self) -> None:
        assert self._message is not None
        self._file = None
        self._installing = maybeDeferred(
            self._receiver.snapshot_received, self._message, self._path
        )
        self._installing.addCallbacks(self._installed, self._not_installed)

    def _installed(self, _: None) -> None:
        self._leave_room()
        self._finish(204, "")

    def _not_installed(self, failure: Failure) -> None:
        self._leave_room()
        self._finish(500, f"failed to process raft message ({failure.getErrorMessage()})")

    def _fail_saving(self, why: str) -> None:
        if self._is_writing:
            # The write that is under way still needs the file; it is the last one.
            self._is_over = True
        else:
            self._discard()
        self._finish(500, f"failed to save KV snapshot ({why})", is_forced=True)

    def _finish(self, status: int, text: str, is_forced: bool = False) -> None:
        if self._is_over and not is_forced:
            return
        self._is_over = True
        self._answer(status, text)

    def _discard(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        file.close()
        self._leave_room()
        for path in (self._part, self._path):
            # It has its final name when it was given up during the last write.
            try:
                os.unlink(path)
                return
            except FileNotFoundError:
                continue

    def _leave_room(self) -> None:
        taken, self._taken = self._taken, 0
        self._room.give_back(taken)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, FILE_MODE)


def _write_durably(file: IO[bytes], data: bytes, seconds: Callable[[], float]) -> float:
    """Return how long the disk took to make it durable."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
    began_s = seconds()
    os.fdatasync(file.fileno())
    return seconds() - began_s


def _close_durably(
    file: IO[bytes], data: bytes, part: str, path: str, seconds: Callable[[], float]
) -> float:
    took_s = _write_durably(file, data, seconds)
    file.close()
    os.replace(part, path)
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return took_s
