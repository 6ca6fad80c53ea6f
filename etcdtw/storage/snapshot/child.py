"""A short-lived process beside the state's writer: one job, one answer on its standard output.

`StateChild` is the member's side; `run_child` is the child's.  It is a process, not a thread, so
that neither the reactor nor the commits wait for it.
"""

from __future__ import annotations

import gc
import marshal
import os
import signal
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
from etcdtw.storage.disk.directory import DataDirError
from etcdtw.storage.disk.failure import Guard
from etcdtw.storage.rows.codec import StateCorruptionError

READ_SIZE: Final = 1 << 16
ANSWER_SIZE_MAX: Final = 1 << 20  # octets; answers are some numbers and a small row
REAP_TIMEOUT_S: Final = 5.0
STALL_S: Final = 900  # without a sign of progress; the longest step checks a whole file
NICENESS: Final = 10  # the member and its writer go first
ADVICE: Final = (
    "check the limits of open files and processes and the room for temporary files, then try again"
)
FAILED: Final = "failed"
DONE: Final = "done"

Answer = tuple[Any, ...]


class ParentGoneError(Exception):
    """The member has ended: nobody waits for the answer."""


@implementer(IReadDescriptor)
class StateChild:
    """One child process, and who waits for its answer.

    ``done(answer)`` is called once: with what the child's job returned, or with a sentence why
    there is nothing.  What it raises stops the process.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        done: Callable[[Answer | str], None],
        fail_stop: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._done: Callable[[Answer | str], None] | None = done
        self._guard = Guard("what waited for a snapshot", fail_stop)
        self._octets = b""
        self._child: subprocess.Popen[bytes] | None = None
        self._fd = -1
        self.pid = 0

    def start(self, module: str, job: Answer) -> None:
        """Start ``module`` with ``job``, plain values for its `run_child`.

        When that fails, as where too many files are open, ``done`` hears of it before this returns.
        """
        with self._guard:
            try:
                self._spawn(module, job)
                self._reactor.addReader(self)
            except OSError as error:
                self._give_up(f"no process could be started: {error}; {ADVICE}")

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
        with self._guard:
            self._read()

    def connectionLost(self, reason: Failure) -> None:
        """Called by the reactor at the end of the child, and at its own: then `close` follows."""
        self._reactor.removeReader(self)
        self.doRead()

    def _spawn(self, module: str, job: Answer) -> None:
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

    def _read(self) -> None:
        while self._fd >= 0:
            try:
                octets = os.read(self._fd, READ_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                self._give_up(f"the process cannot be heard: {error}")
                return
            self._octets += octets
            if not octets or len(self._octets) > ANSWER_SIZE_MAX:
                self._end()

    def _give_up(self, why: str) -> None:
        done, self._done = self._done, None
        self._end()
        if done is not None:
            done(why)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        self._reactor.removeReader(self)
        self._fd = -1
        assert child.stdout is not None
        child.stdout.close()
        if self._done is None:
            child.kill()
        try:
            status = child.wait(REAP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            status = child.wait()
        done, self._done = self._done, None
        if done is None:
            return
        try:
            kind, *rest = marshal.loads(self._octets)  # noqa: S302 - our own child's
        except (EOFError, ValueError, TypeError):
            if status == -signal.SIGALRM:
                done(f"the process made no progress for {STALL_S} s and was ended")
                return
            done(f"the process ended with status {status} and no answer")
            return
        done(tuple(rest) if kind == DONE else str(rest[0]))


def run_child(arguments: list[str], work: Callable[..., Answer], stall_s: int = STALL_S) -> int:
    """Do ``work(still_wanted, *job)`` and print its answer; returns the exit status.

    ``still_wanted()`` raises `ParentGoneError` when the member has ended, and is a sign of
    progress: without one for ``stall_s`` an alarm ends the process.
    """
    job = marshal.load(sys.stdin.buffer)  # noqa: S302 - our own member's
    parent = int(arguments[0])

    def still_wanted() -> None:
        signal.alarm(stall_s)
        if os.getppid() != parent:
            raise ParentGoneError

    signal.alarm(stall_s)
    os.nice(NICENESS)
    gc.disable()  # millions of rows and not one cycle: looking for them costs a tenth
    try:
        answer = (DONE, *work(still_wanted, *job))
    except ParentGoneError:
        return 1
    except (lmdb.Error, OSError, DataDirError, BboltError, StateCorruptionError) as error:
        answer = (FAILED, str(error))
    os.write(1, marshal.dumps(answer))
    return 0
