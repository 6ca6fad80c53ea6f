"""`ProcessStateWriter`: the writer process as the member's reactor sees it.

One socket pair, one child.  The child's death is a failure of the member.
"""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorFDSet, IReactorTime, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.storage.disk.directory import DataDirError
from etcdtw.storage.disk.failure import Guard
from etcdtw.storage.writer.feed import Message
from etcdtw.storage.writer.main import MessageReader, encode_message
from etcdtw.storage.writer.worker import FAILED, FULL_PACE, READY, Pace
from etcdtw.wire.pieces import STATE, UNMEASURED, Pieces

START_TIMEOUT_S: Final = 20.0
CLOSE_TIMEOUT_S: Final = 60.0
SOCKET_BUFFER_SIZE: Final = 4 << 20
READ_SIZE: Final = 1 << 16


@implementer(IReadWriteDescriptor)
class ProcessStateWriter:
    """Starts the child and carries messages.  Implements `StateWriter`."""

    def __init__(
        self,
        reactor: IReactorFDSet,
        path: Path,
        map_size: int,
        lock_fd: int,
        pace: Pace = FULL_PACE,
        pieces: Pieces = UNMEASURED,
        popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
    ) -> None:
        """Start the child and wait until it has opened the environment.

        It inherits ``lock_fd``, so that a successor of this member cannot start while the child
        still commits.  Raises `DataDirError` when it does not come up.
        """
        self._reactor = reactor
        self._pieces = pieces
        self._receive: Callable[[Message], None] | None = None
        self._queue: deque[bytes | memoryview] = deque()
        self._reader = MessageReader()
        self._guard = Guard("what waited for the state", self._lost)
        self._socket, theirs = socket.socketpair()
        for end in (self._socket, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_SIZE)
        fds = (theirs.fileno(), *((lock_fd,) if lock_fd >= 0 else ()))
        try:
            self._child = popen(
                [sys.executable, "-m", "etcdtw.storage.writer.main", str(path), str(map_size),
                 str(theirs.fileno()), *map(str, pace)],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            self._socket.close()
            raise DataDirError(
                f"the state writer process cannot be started: {error}; "
                "check the limits of processes and open files"
            ) from error
        finally:
            theirs.close()
        self.pid = self._child.pid
        self._await_ready()

    def _await_ready(self) -> None:
        self._socket.settimeout(START_TIMEOUT_S)
        try:
            while not (messages := self._reader.feed(data := self._socket.recv(READ_SIZE))):
                if not data:
                    break
        except OSError as error:
            messages = [(FAILED, str(error))]
        self._socket.setblocking(False)
        first = messages[0] if messages else (FAILED, "it ended at once")
        if first[0] != READY:
            self._child.kill()
            self._child.wait()
            self._socket.close()
            raise DataDirError(f"the state writer process did not start: {first[1]}")

    # StateWriter.

    def start(self, receive: Callable[[Message], None]) -> None:
        self._receive = receive
        self._reactor.addReader(self)

    def send(self, message: Message) -> None:
        frame = encode_message(message)
        if self._queue:
            self._queue.append(frame)
            return
        sent = self._write(frame)
        if sent < len(frame):
            self._queue.append(memoryview(frame)[sent:])
            self._reactor.addWriter(self)

    def soon(self, then: Callable[[], None]) -> None:
        cast(IReactorTime, self._reactor).callLater(0, self._go_on, then)

    def _go_on(self, then: Callable[[], None]) -> None:
        if self._receive is not None:
            piece = self._pieces.begin()
            with self._guard:
                then()
            self._pieces.end(piece, STATE)

    def close(self) -> None:
        """Write what is queued, let the child finish it, and reap the child."""
        self._receive = None
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._socket.settimeout(CLOSE_TIMEOUT_S)
        try:
            while self._queue:
                self._socket.sendall(self._queue.popleft())
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv(READ_SIZE):
                pass
        except OSError:
            pass  # the child is gone already: nothing was promised
        self._socket.close()
        self._reap()

    # IReadWriteDescriptor.

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:  # noqa: N802
        return "state writer"

    def doRead(self) -> None:  # noqa: N802
        try:
            data = self._socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(f"the state writer process is gone: {error}")
            return
        if not data:
            self._lost("the state writer process is gone")
            return
        piece = self._pieces.begin()
        with self._guard:
            for message in self._reader.feed(data):
                if self._receive is not None:
                    self._receive(message)
        self._pieces.end(piece, STATE)

    def doWrite(self) -> None:  # noqa: N802
        while self._queue:
            frame = self._queue[0]
            sent = self._write(frame)
            if sent < len(frame):
                self._queue[0] = memoryview(frame)[sent:]
                return
            self._queue.popleft()
        self._reactor.removeWriter(self)

    def connectionLost(self, reason: Failure) -> None:
        """Called by the reactor when it drops the descriptor, at its own end too.

        Only that is no failure: `close` will follow.
        """
        why = reason.getErrorMessage()
        try:
            is_gone = self._socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            is_gone = False
        except OSError:
            is_gone = True
        if is_gone:
            self._lost(f"the state writer process is gone: {why}")
        elif reason.type is not ConnectionLost:  # nor one of its kinds
            self._lost(f"the state writer process is no longer heard: {why}")

    def _write(self, frame: bytes | memoryview) -> int:
        try:
            return self._socket.send(frame)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                self._lost(f"the state writer process is gone: {error}")
            return 0

    def _lost(self, reason: str) -> None:
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        receive, self._receive = self._receive, None
        if receive is not None:
            receive((FAILED, reason))

    def _reap(self) -> None:
        try:
            self._child.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
