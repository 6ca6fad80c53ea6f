"""The writer process of `state/`.

    python -m etcdtw.storage.writer.main PATH MAP_SIZE FD COMPACTION_ROWS COMPACTION_PAUSE_S \\
        SWEEP_INTERVAL_S

Reads messages from the socket FD and answers on it.  It owns the write side alone, ends when
the member ends (end of file), and ends with a reason when a commit fails.  Imports little, so
that it stays small.

    frame := size:u32 payload     (big-endian; the payload is a marshalled tuple)
"""

from __future__ import annotations

import ctypes
import marshal
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import Any, Final

import lmdb

from etcdtw.storage.building.swap import swap_in
from etcdtw.storage.disk.core_dumps import follow_parent
from etcdtw.storage.disk.directory import DataDirError, open_environment
from etcdtw.storage.rows.codec import StateCorruptionError
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables
from etcdtw.storage.writer.defragment import Defragmentation
from etcdtw.storage.writer.worker import COMMIT, FAILED, READY, Pace, StateWorker

SIZE: Final = Struct(">I")
WORK_PAUSE_S: Final = 0.002  # between two steps of background work: commits go first
MESSAGES_PER_STEP: Final = 8  # so that a steady stream does not starve it either
IDLE_S: Final = 3.0
RECEIVE_SIZE: Final = 1 << 20
EXIT_COMMIT_FAILED: Final = 70


def encode_message(message: tuple[Any, ...]) -> bytes:
    """Return a message as one frame."""
    payload = marshal.dumps(message)
    return SIZE.pack(len(payload)) + payload


class MessageReader:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._have = 0
        self._need = SIZE.size

    def feed(self, data: bytes) -> list[tuple[Any, ...]]:
        """Take octets and return every message they complete, in order.

        Parts are joined only when a message is whole, so that large ones cost no more.
        """
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return []
        buffer = b"".join(self._parts)
        messages: list[tuple[Any, ...]] = []
        at = 0
        self._need = SIZE.size
        while len(buffer) - at >= SIZE.size:
            size = SIZE.unpack_from(buffer, at)[0]
            if len(buffer) - at - SIZE.size < size:
                self._need = SIZE.size + size
                break
            at += SIZE.size
            messages.append(marshal.loads(memoryview(buffer)[at : at + size]))  # noqa: S302
            at += size
        self._parts = [buffer[at:]]
        self._have = len(buffer) - at
        return messages


def serve(
    connection: socket.socket, worker: StateWorker, open_tables: Callable[[int], Tables]
) -> None:
    """Treat messages until the other side is gone; work in the background in between.

    When nothing happened for a while, the memory of past commits is given back.
    """
    reader = MessageReader()
    sweeper = worker.sweeper
    received = 0
    while True:
        is_swollen = worker.is_swollen()
        timeout_s = IDLE_S if is_swollen else None
        if worker.has_work():
            timeout_s = max(WORK_PAUSE_S, worker.rest_s)
        elif not is_swollen and sweeper.rest_s is not None:  # the memory first
            timeout_s = max(WORK_PAUSE_S, sweeper.rest_s)
        readable, _, _ = select.select([connection], [], [], timeout_s)
        if readable:
            data = connection.recv(RECEIVE_SIZE)
            if not data:
                return
            for message in reader.feed(data):
                worker.receive(message)
                received += 1
                if message[0] == COMMIT and worker.is_too_large():
                    worker.reopen(open_tables)
                    trim_memory()
                if received % MESSAGES_PER_STEP == 0 and worker.has_work():
                    worker.work()
        elif worker.has_work():
            worker.work()
        elif is_swollen:
            worker.reopen(open_tables)
            trim_memory()
        else:
            sweeper.step()


def trim_memory() -> None:
    """Give freed memory back to the system, where the C library knows how."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def main(arguments: list[str]) -> int:
    """Open the environment, say so, serve.  Returns the exit status."""
    path, map_size, fd = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    pace = Pace(int(arguments[3]), float(arguments[4]), float(arguments[5]))
    # The terminal's and systemd's signals go to the whole group; the member decides for both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = socket.socket(fileno=fd)
    connection.setblocking(True)

    def answer(message: tuple[Any, ...]) -> None:
        connection.sendall(encode_message(message))

    def open_tables(size: int) -> Tables:
        return Tables(open_environment(path, size, DATABASES_MAX))

    def adopt(index: int, size: int) -> Tables:
        swap_in(path, index)
        return open_tables(size)

    # A process of its own: this is where time comes in.
    seconds, unix_s = time.monotonic, time.time  # noqa: TID251
    try:
        worker = StateWorker(
            open_tables(map_size),
            map_size,
            answer,
            pace,
            seconds,
            unix_s,
            defragmentation=lambda tables, size: Defragmentation(tables, path, size),
            adopt=adopt,
        )
        answer((READY, os.getpid()))
        serve(connection, worker, open_tables)
    except (BrokenPipeError, ConnectionResetError):
        return 0  # the member is gone
    except (lmdb.Error, OSError, DataDirError, StateCorruptionError) as error:
        answer((FAILED, f"state commit failed: {error}"))
        return EXIT_COMMIT_FAILED
    return 0


if __name__ == "__main__":
    follow_parent()
    os._exit(main(sys.argv[1:]))
