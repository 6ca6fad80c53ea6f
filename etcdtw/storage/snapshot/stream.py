"""A snapshot of the state that is no file, for a member whose disk has no room for one.

One read transaction, gone through twice: the first pass keeps nothing but the layout, which the
file begins with; the second hands out the octets, as fast as they are taken.  It keeps the pages
of its transaction from being used again, on a disk that is full: so there is one at a time, and
it ends after `STREAM_S_MAX`, come what may.

Started by `snapshots`: ``python -m etcdtw.storage.snapshot.stream PARENT``, its job as input.
Its output is an answer with its length before it, then the octets.
"""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import astuple
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.bbolt.writer import BboltWriter
from etcdtw.storage.disk.core_dumps import follow_parent
from etcdtw.storage.disk.failure import Guard
from etcdtw.storage.rows.tables import Tables
from etcdtw.storage.snapshot.child import (
    ADVICE,
    ANSWER_SIZE_MAX,
    DONE,
    FAILURES,
    NO_ANSWER,
    READ_SIZE,
    Answer,
    ParentGoneError,
    answer_to,
    begin_job,
    decode_answer,
    reap,
    spawn,
)
from etcdtw.storage.snapshot.export import (
    Row,
    SnapshotExport,
    add_buckets,
    facts_of,
    meta_of,
    opened_tables,
    rows_of,
)

STREAM_MODULE: Final = "etcdtw.storage.snapshot.stream"
STREAM_S_MAX: Final = 120
"""From its start to its last octet: meanwhile a full state can use few of its pages again."""
LENGTH_SIZE: Final = 4


@implementer(IReadDescriptor)
class SnapshotStream:
    """The member's side of one stream.

    ``done`` is called once: with this, when what it knows is there and `read` gives the octets,
    until whoever has it calls `close`; or with a sentence why there are none.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        done: Callable[[SnapshotStream | str], None],
        closed: Callable[[], None],
        fail_stop: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._done: Callable[[SnapshotStream | str], None] | None = done
        self._closed = closed
        self._guard = Guard("what waited for a snapshot", fail_stop)
        self._octets = b""
        self._waiting: Deferred[bytes] | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._fd = -1
        self.pid = 0
        self.export = SnapshotExport(0, 0, 0, b"")
        self.buckets: list[list[Row]] = []
        """Rows of the buckets that were asked for, in that order."""

    def start(self, job: Answer) -> None:
        """Start the process.  When that fails, ``done`` hears of it before this returns."""
        with self._guard:
            try:
                self._child = spawn(STREAM_MODULE, job)
            except OSError as error:
                self._tell(f"no process could be started: {error}; {ADVICE}")
                return
            self.pid = self._child.pid
            assert self._child.stdout is not None
            self._fd = self._child.stdout.fileno()
            self._reactor.addReader(self)

    def read(self, wanted: int) -> Deferred[bytes]:
        """Give the next octets, ``wanted`` at most; none: no more come, whyever."""
        assert self._done is None and self._waiting is None
        if self._octets or self._child is None:
            octets, self._octets = self._octets[:wanted], self._octets[wanted:]
            return succeed(octets)
        self._waiting = Deferred(self._cancelled)
        self._reactor.addReader(self)
        return self._waiting

    def close(self) -> None:
        """End the child, whatever it does; nothing is told any more."""
        self._done = self._waiting = None
        self._end(is_wanted=False)

    # IReadDescriptor.

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:  # noqa: N802
        return "snapshot stream"

    def doRead(self) -> None:  # noqa: N802
        with self._guard:
            self._read()

    def connectionLost(self, reason: Failure) -> None:
        """Called by the reactor at the end of the child, and at its own: then `close` follows."""
        self._reactor.removeReader(self)
        if self._fd >= 0:
            self.doRead()

    def _read(self) -> None:
        try:
            octets = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        self._octets += octets
        if not octets:
            self._end(is_wanted=True)
        if self._done is not None:
            self._look_for_answer()
        elif self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._reactor.removeReader(self)
            octets, self._octets = self._octets, b""
            waiting.callback(octets)

    def _look_for_answer(self) -> None:
        length = int.from_bytes(self._octets[:LENGTH_SIZE], "big")
        end = LENGTH_SIZE + length
        if length > ANSWER_SIZE_MAX or (self._child is None and len(self._octets) < end):
            self._tell("the process ended without an answer")
        elif len(self._octets) >= max(end, LENGTH_SIZE + 1):
            self._reactor.removeReader(self)
            try:
                answer = decode_answer(self._octets[LENGTH_SIZE:end])
            except NO_ANSWER:
                answer = "the process gave no answer"
            self._octets = self._octets[end:]
            if isinstance(answer, str):
                self._tell(answer)
            else:
                self.export, self.buckets = SnapshotExport(*answer[0]), answer[1]
                self._tell(self)

    def _tell(self, found: SnapshotStream | str) -> None:
        done, self._done = self._done, None
        if isinstance(found, str):
            self._end(is_wanted=False)
        if done is not None:
            done(found)

    def _cancelled(self, _: object) -> None:
        self._waiting = None
        self._reactor.removeReader(self)

    def _end(self, *, is_wanted: bool) -> None:
        child, self._child = self._child, None
        if child is not None:
            self._reactor.removeReader(self)
            self._fd = -1
            reap(child, is_wanted=is_wanted)
        self._closed()


# The child's side.


def stream(
    tables: Tables,
    buckets: Iterable[bytes],
    tell: Callable[[SnapshotExport, list[list[Row]]], object],
    write: Callable[[bytes], object],
    still_wanted: Callable[[], None] = lambda: None,
) -> None:
    """Tell the facts, then write the octets that `export.export` would write into a file."""
    with tables.env.begin() as txn:
        meta = meta_of(txn, tables)
        first = BboltWriter(lambda _: still_wanted())
        add_buckets(first, txn, tables, meta)
        head = first.finish()
        rows = [list(rows_of(txn, tables, name)) for name in buckets]
        tell(facts_of(first.size, meta), rows)

        def write_on(octets: bytes) -> None:
            nonlocal head
            still_wanted()
            head, begun = b"", head
            write(begun + octets[len(begun) :] if begun else octets)

        second = BboltWriter(write_on)
        add_buckets(second, txn, tables, meta)
        second.finish()


def run_stream(parent: int, job: Answer, out_fd: int) -> int:
    """Do one job of a member; returns the exit status."""
    path, map_size, buckets = job
    is_told = False

    def still_wanted() -> None:
        if os.getppid() != parent:
            raise ParentGoneError

    def write(octets: bytes) -> None:
        rest = memoryview(octets)
        while rest:
            rest = rest[os.write(out_fd, rest) :]

    def say(answer: Answer) -> None:
        octets = marshal.dumps(answer)
        write(len(octets).to_bytes(LENGTH_SIZE, "big") + octets)

    def tell(export: SnapshotExport, rows: list[list[Row]]) -> None:
        nonlocal is_told
        is_told = True
        say((DONE, astuple(export), rows))

    try:
        with opened_tables(Path(path), map_size) as tables:
            stream(tables, buckets, tell, write, still_wanted)
    except (ParentGoneError, BrokenPipeError):
        return 1
    except FAILURES as error:
        if is_told:
            return 1  # the octets end early, and that says it
        say(answer_to(error))
    return 0


def main(arguments: list[str]) -> int:
    """Do the job on the standard input, for the member that is named; returns the exit status."""
    return run_stream(int(arguments[0]), begin_job(STREAM_S_MAX), 1)


if __name__ == "__main__":
    follow_parent()
    os._exit(main(sys.argv[1:]))
