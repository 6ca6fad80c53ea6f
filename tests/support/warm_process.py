"""A process that has imported all of a member, and forks one whenever `warm_starts` asks.

A program of its own: ``python warm_process.py FD``.  On the socket FD it is asked by one JSON
message each, with two descriptors: the member's stderr, and a socket on which it tells the
member's pid, then its status when it has ended.  It ends at the end of the socket.

It never imports the reactor: each member makes its own, as it does behind twistd's own start.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import sys
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Final

NUMBER: Final = Struct("i")  # a pid, or a status; negative: the signal
REQUEST_SIZE_MAX: Final = 1 << 17


def imports() -> None:
    """Import what `twistd etcdtw` imports before and after it has read its flags."""
    gc.disable()
    from twisted.application.service import IServiceMaker
    from twisted.plugin import getPlugins

    list(getPlugins(IServiceMaker))
    import etcdtw.plugins.server
    import etcdtw.server.process.services
    import etcdtw.server.services.order  # noqa: F401

    assert "twisted.internet.reactor" not in sys.modules
    gc.freeze()
    gc.enable()


class Forks:
    """Starts what it is asked for, and tells how each ended."""

    def __init__(self, asked: socket.socket) -> None:
        self._asked = asked
        self._poll = select.poll()
        self._poll.register(asked, select.POLLIN)
        self._told: dict[int, tuple[int, socket.socket]] = {}  # by pidfd: pid, who wants to know

    def serve(self) -> None:
        """Return in a process that is to become a member; raises SystemExit when nobody asks."""
        while True:
            for fd, _ in self._poll.poll():
                if fd != self._asked.fileno():
                    self._ended(fd)
                elif self._start():
                    return

    def _ended(self, pidfd: int) -> None:
        pid, told = self._told.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        with suppress(OSError):  # nobody wants to know any more
            told.send(NUMBER.pack(os.waitstatus_to_exitcode(status)))
        told.close()

    def _start(self) -> bool:
        """Return whether this is the new process."""
        text, fds, _, _ = socket.recv_fds(self._asked, REQUEST_SIZE_MAX, 2)
        if not text:
            raise SystemExit(0)
        stderr, told_fd = fds
        pid = os.fork()
        if not pid:
            self._forget()
            os.close(told_fd)
            _become(stderr, **json.loads(text))
            return True
        os.close(stderr)
        told = socket.socket(fileno=told_fd)
        told.send(NUMBER.pack(pid))
        pidfd = os.pidfd_open(pid)
        self._told[pidfd] = pid, told
        self._poll.register(pidfd, select.POLLIN)
        return False

    def _forget(self) -> None:
        self._asked.close()
        for pidfd, (_, told) in self._told.items():
            os.close(pidfd)
            told.close()


def _become(stderr: int, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    os.dup2(stderr, 2)
    os.close(stderr)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = arguments


if __name__ == "__main__":
    sys.path[0] = str(Path(sys.executable).parent)  # where the script twistd is
    imports()
    Forks(socket.socket(fileno=int(sys.argv[1]))).serve()
    from twisted.scripts.twistd import run

    run()
