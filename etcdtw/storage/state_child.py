"""A short-lived process beside the state's writer: one job, one answer on its standard output.

`StateChild` is the member's side; `run_child` is the child's.  It is a process, not a thread, so
that neither the reactor nor the commits wait for it.
"""

from __future__ import annotations

import gc
import marshal
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any, Final

import lmdb
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.bbolt.layout import BboltError
from etcdtw.storage.directory import DataDirError

READ_SIZE: Final = 1 << 16
ANSWER_SIZE_MAX: Final = 1 << 20  # octets; answers are some numbers and a small row
REAP_TIMEOUT_S: Final = 5.0
NICENESS: Final = 10  # the member and its writer go first
FAILED: Final = "failed"
DONE: Final = "done"

Answer = tuple[Any, ...]


class ParentGoneError(Exception):
    """The member has ended: nobody waits for the answer."""


@implementer(IReadDescriptor)
class StateChild:
    """Starts one child and tells of its answer once.

    ``done(answer)`` gets what the child's job returned, or a sentence why there is nothing.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        module: str,
        job: Answer,
        done: Callable[[Answer | str], None],
    ) -> None:
        """``job``: plain values for the child's `run_child`."""
        self._reactor = reactor
        self._done: Callable[[Answer | str], None] | None = done
        self._octets = b""
        with tempfile.TemporaryFile() as task:
            task.write(marshal.dumps(job))
            task.seek(0)
            self._child = subprocess.Popen(
                [sys.executable, "-m", module, str(os.getpid())],
                stdin=task,
                stdout=subprocess.PIPE,
            )
        self.pid = self._child.pid
        assert self._child.stdout is not None
        self._fd = self._child.stdout.fileno()
        os.set_blocking(self._fd, False)
        reactor.addReader(self)

    def close(self) -> None:
        """End the child, whatever it does; nothing is told any more."""
        self._done = None
        self._end()

    # IReadDescriptor.

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:  # noqa: N802
        return "state child"

    def doRead(self) -> None:  # noqa: N802
        while self._fd >= 0:
            try:
                octets = os.read(self._fd, READ_SIZE)
            except BlockingIOError:
                return
            self._octets += octets
            if not octets or len(self._octets) > ANSWER_SIZE_MAX:
                self._end()

    def connectionLost(self, reason: Failure) -> None:
        """Called by the reactor at the end of the child, and at its own: then `close` follows."""
        self._reactor.removeReader(self)
        self.doRead()

    def _end(self) -> None:
        if self._fd < 0:
            return
        self._reactor.removeReader(self)
        self._fd = -1
        assert self._child.stdout is not None
        self._child.stdout.close()
        if self._done is None:
            self._child.kill()
        try:
            status = self._child.wait(REAP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            status = self._child.wait()
        done, self._done = self._done, None
        if done is None:
            return
        try:
            kind, *rest = marshal.loads(self._octets)  # noqa: S302 - our own child's
        except (EOFError, ValueError, TypeError):
            done(f"the process ended with status {status} and no answer")
            return
        done(tuple(rest) if kind == DONE else str(rest[0]))


def run_child(arguments: list[str], work: Callable[..., Answer]) -> int:
    """Do ``work(still_wanted, *job)`` and print its answer; returns the exit status.

    ``still_wanted()`` raises `ParentGoneError` when the member has ended.
    """
    job = marshal.load(sys.stdin.buffer)  # noqa: S302 - our own member's
    parent = int(arguments[0])

    def still_wanted() -> None:
        if os.getppid() != parent:
            raise ParentGoneError

    os.nice(NICENESS)
    gc.disable()  # millions of rows and not one cycle: looking for them costs a tenth
    try:
        answer = (DONE, *work(still_wanted, *job))
    except ParentGoneError:
        return 1
    except (lmdb.Error, OSError, DataDirError, BboltError) as error:
        answer = (FAILED, str(error))
    os.write(1, marshal.dumps(answer))
    return 0
