"""`StateSnapshots`: snapshots of a running member's state, out to a file and in from one.

Out: everything applied is flushed, then a child process copies one transaction.  In: a child
builds a complete state beside the running one; `LmdbState.adopt` is the moment it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Final

from twisted.internet.interfaces import IReactorFDSet

from etcdtw.storage.building.from_bbolt import SnapshotFacts, SnapshotInstall
from etcdtw.storage.building.swap import remove_built
from etcdtw.storage.snapshot.child import Answer, StateChild
from etcdtw.storage.snapshot.export import SnapshotExport
from etcdtw.storage.snapshot.stream import SnapshotStream
from etcdtw.storage.state.state import LmdbState

EXPORTS_MAX: Final = 4  # at once; each pins the pages of its transaction and a core
EXPORT_MODULE: Final = "etcdtw.storage.snapshot.export"
INSTALL_MODULE: Final = "etcdtw.storage.snapshot.install"


class StateSnapshots:
    """The snapshots of one member."""

    def __init__(
        self,
        reactor: IReactorFDSet,
        state: LmdbState,
        path: Path,
        map_size: int,
        fail_stop: Callable[[str], None],
    ) -> None:
        """``fail_stop`` ends the process when what waits for a snapshot raises."""
        self._reactor = reactor
        self._fail_stop = fail_stop
        self._state = state
        self._path = path
        self._map_size = map_size
        self._exports: set[StateChild] = set()
        self._waiting = 0
        self._build: StateChild | None = None
        self._stream: SnapshotStream | None = None
        self._built = 0  # the index of a state that is complete and not adopted; 0: none
        self._is_closed = False

    def export(
        self,
        target: Path,
        done: Callable[[SnapshotExport | str], None],
        storage_version: bytes = b"",
    ) -> None:
        """Write everything applied up to now to ``target``, durably, as etcd's database file.

        ``done`` gets the facts of the file, or why there is none.  The file holds no seal.
        """
        if len(self._exports) + self._waiting >= EXPORTS_MAX:
            done(f"{EXPORTS_MAX} snapshots are being taken already; try again later")
            return
        self._waiting += 1
        self._state.flush(lambda: self._start_export(target, done, storage_version))

    def stream(
        self, buckets: Sequence[bytes], done: Callable[[SnapshotStream | str], None]
    ) -> None:
        """Hand out everything applied up to now, without a file; one at a time.

        ``done`` gets what the octets are read from, until it is closed, with the facts and the
        rows of ``buckets``; or why there is none.
        """
        if self._stream is not None or self._is_closed:
            done("another snapshot is being streamed already; try again later")
            return

        def ended() -> None:
            if self._stream is stream:  # it may end, and be closed after another one has begun
                self._stream = None
            self._child_ended()

        stream = SnapshotStream(self._reactor, done, ended, self._fail_stop)
        self._stream = stream
        job = (str(self._path), self._map_size, list(buckets))

        def flushed() -> None:
            if self._stream is stream:
                stream.start(job)

        self._state.flush(flushed)

    def build(
        self, source: Path, facts: SnapshotFacts, done: Callable[[SnapshotInstall | str], None]
    ) -> None:
        """Check ``source`` and build a complete state from it beside the running one.

        Afterwards either the log forgets its entries (`LmdbLog.install_snapshot`) and then
        `adopt` is called, or `discard`.  One at a time, until then.
        """
        if self._build is not None or self._built or self._is_closed:
            done("another snapshot is being installed already")
            return

        def told(answer: Answer | str) -> None:
            self._build = None
            if isinstance(answer, str):
                done(answer)
                return
            install = SnapshotInstall(*answer)
            self._built = install.index
            done(install)

        job = (str(source), str(self._path), self._map_size, astuple(facts))
        self._build = StateChild(self._reactor, told, self._fail_stop)
        self._build.start(INSTALL_MODULE, job)

    def adopt(self, done: Callable[[], None]) -> None:
        """Let the built state take the place of the running one; see `LmdbState.adopt`."""
        assert self._built, "nothing is built"

        def adopted() -> None:
            self._built = 0
            done()

        self._state.adopt(self._built, adopted)

    def discard(self) -> None:
        """Delete the built state: the log has not been told of it, and will not be."""
        self._built = 0
        remove_built(self._path)

    def dispose(self, file: Path) -> None:
        """Delete a snapshot's file without holding anybody up."""
        self._state.dispose(file)

    def close(self) -> None:
        """End all children; nothing is told afterwards."""
        self._is_closed = True
        for child in (*self._exports, self._build, self._stream):
            if child is not None:
                child.close()

    def _child_ended(self) -> None:
        """It may have been killed while it read."""
        if not self._is_closed:
            self._state.forget_ended_reads()

    def _start_export(
        self, target: Path, done: Callable[[SnapshotExport | str], None], storage_version: bytes
    ) -> None:
        self._waiting -= 1
        if self._is_closed:
            return

        def told(answer: Answer | str) -> None:
            self._exports.discard(child)
            self._child_ended()
            done(answer if isinstance(answer, str) else SnapshotExport(*answer))

        job = (str(self._path), self._map_size, str(target), storage_version)
        child = StateChild(self._reactor, told, self._fail_stop)
        self._exports.add(child)
        child.start(EXPORT_MODULE, job)
