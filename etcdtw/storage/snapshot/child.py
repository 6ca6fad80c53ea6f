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
from etcdtw.storage.disk.words import is_full
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
NO_ROOM: Final = "no room"
DONE: Final = "done"

FAILURES: Final = (lmdb.Error, OSError, DataDirError, BboltError, StateCorruptionError)
NO_ANSWER: Final = (EOFError, ValueError, TypeError)

Answer = tuple[Any, ...]


class ParentGoneError(Exception):
    """The member has ended: nobody waits for the answer."""


class NoRoom(str):
    """The sentence why there is no file, where its disk has no room for one."""

    __slots__ = ()


def spawn(module: str, job: Answer) -> subprocess.Popen[bytes]:
    """Start ``module`` with ``job``; what it says is read without waiting.  Raises `OSError`."""
    with tempfile.TemporaryFile() as task:
        task.write(marshal.dumps(job))
        task.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-m", module, str(os.getpid())], stdin=task, stdout=subprocess.PIPE
        )
    assert child.stdout is not None
    os.set_blocking(child.stdout.fileno(), False)
    return child


def reap(child: subprocess.Popen[bytes], *, is_wanted: bool) -> int:
    """Close what a child says, end it unless it is about to end, and return its status."""
    assert child.stdout is not None
    child.stdout.close()
    if not is_wanted:
        child.kill()
    try:
        return child.wait(REAP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def decode_answer(octets: bytes) -> Answer | str:
    """Return what a child has answered.  Raises when it is no answer: `NO_ANSWER`."""
    kind, *rest = marshal.loads(octets)  # noqa: S302 - our own child's
    if kind == DONE:
        return tuple(rest)
    return NoRoom(rest[0]) if kind == NO_ROOM else str(rest[0])


def answer_to(error: Exception) -> Answer:
    """Return what a child says that could not do its job."""
    return (NO_ROOM if is_full(error) else FAILED, str(error))


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
        self._child = spawn(module, job)
        self.pid = self._child.pid
        assert self._child.stdout is not None
        self._fd = self._child.stdout.fileno()

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
        status = reap(child, is_wanted=self._done is not None)
        done, self._done = self._done, None
        if done is None:
            return
        try:
            answer = decode_answer(self._octets)
        except NO_ANSWER:
            if status == -signal.SIGALRM:
                done(f"the process made no progress for {STALL_S} s and was ended")
                return
            done(f"the process ended with status {status} and no answer")
            return
        done(answer)


def begin_job(alarm_s: int) -> Any:
    """Return the job on the standard input; the process goes last, and an alarm ends it."""
    job = marshal.load(sys.stdin.buffer)  # noqa: S302 - our own member's
    signal.alarm(alarm_s)
    os.nice(NICENESS)
    gc.disable()  # millions of rows and not one cycle: looking for them costs a tenth
    return job


def run_child(arguments: list[str], work: Callable[..., Answer], stall_s: int = STALL_S) -> int:
    """Do ``work(still_wanted, *job)`` and print its answer; returns the exit status.

    ``still_wanted()`` raises `ParentGoneError` when the member has ended, and is a sign of
    progress: without one for ``stall_s`` an alarm ends the process.
    """
    job = begin_job(stall_s)
    parent = int(arguments[0])

    def still_wanted() -> None:
        signal.alarm(stall_s)
        if os.getppid() != parent:
            raise ParentGoneError

    try:
        answer = (DONE, *work(still_wanted, *job))
    except ParentGoneError:
        return 1
    except FAILURES as error:
        answer = answer_to(error)
    os.write(1, marshal.dumps(answer))
    return 0
