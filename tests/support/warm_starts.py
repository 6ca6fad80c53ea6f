"""Members that are forked from a process which has imported all of them already.

Four fifths of the CPU time of a start are imports; the suite starts hundreds of members.  From
`twistd.run` on they do what any member does, in a process of their own with a pid, descriptors,
signals and chances of their own.  How a member starts is tested with twistd itself
(`tests.support.launches`), and everything outside pytest, benchmarks too, starts by it.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from tests.support.warm_process import NUMBER

PROGRAM: Final = Path(__file__).with_name("warm_process.py")
START_TIMEOUT_S: Final = 60.0
END_TIMEOUT_S: Final = 30.0


class WarmProcess:
    """As much of `subprocess.Popen` as members need."""

    def __init__(self, told: socket.socket, stderr: BinaryIO, arguments: Sequence[str]) -> None:
        self.stderr = stderr
        self.returncode: int | None = None
        self._told = told
        self._arguments = arguments
        self._lock = threading.Lock()
        told.settimeout(START_TIMEOUT_S)
        (self.pid,) = NUMBER.unpack(told.recv(NUMBER.size))
        told.setblocking(False)

    def poll(self) -> int | None:
        """Return the status if it has ended."""
        with self._lock:
            if self.returncode is None:
                try:
                    text = self._told.recv(NUMBER.size)
                except BlockingIOError:
                    return None
                if not text:
                    raise ProcessLookupError(f"who forked {self.pid} is gone")
                (self.returncode,) = NUMBER.unpack(text)
                self._told.close()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the status; raises `subprocess.TimeoutExpired`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            status = self.poll()
            if status is not None:
                return status
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise subprocess.TimeoutExpired(self._arguments, timeout or 0.0)
            try:
                select.select([self._told], [], [], left_s)
            except ValueError:
                continue  # another thread has just heard it

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class WarmStarts:
    """One process to fork from, begun with the first start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ask: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> WarmProcess:
        """Start a member; ``arguments`` begin with the path of twistd."""
        sys.audit("subprocess.Popen", arguments[0], arguments, folder, environment)
        told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reader, writer = os.pipe()
        request = {
            "arguments": list(arguments),
            "folder": str(folder),
            "environment": dict(environment),
        }
        try:
            with self._lock:
                if self._ask is None:
                    self._process, self._ask = _begin()
                descriptors = [writer, theirs.fileno()]
                socket.send_fds(self._ask, [json.dumps(request).encode()], descriptors)
        finally:
            os.close(writer)
            theirs.close()
        return WarmProcess(told, os.fdopen(reader, "rb"), arguments)

    def close(self) -> None:
        """End the process to fork from, and wait for it; members that run go on."""
        with self._lock:
            if self._process is not None and self._ask is not None:
                self._ask.close()
                self._process.wait(END_TIMEOUT_S)
                self._process = self._ask = None


def _begin() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ask, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    return process, ask


class _Suite:
    starts: WarmStarts | None = None


def begin_suite() -> None:
    """From here on members of this process start warm: pytest's root conftest calls it."""
    _Suite.starts = WarmStarts()


def end_suite() -> None:
    """Leave nothing behind."""
    if _Suite.starts is not None:
        _Suite.starts.close()
        _Suite.starts = None


def warm_starts() -> WarmStarts | None:
    """Return how members start here; None: by twistd."""
    return _Suite.starts
