"""What the state waits for beside its generations: answers of the writer, and compactions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcdtw.mvcc.backend import BUCKET_META
from etcdtw.storage.rows.codec import META_FINISHED, META_SCHEDULED, parse_revision_key
from etcdtw.storage.state.reader import StateReader
from etcdtw.storage.writer.feed import Message
from etcdtw.storage.writer.worker import DEFRAGMENT

ERRANDS_MAX: Final = 64
"""Hashes and defragmentations that wait: the writer does one at a time, and each may take
minutes."""


class ErrandError(Exception):
    """The writer does not do what it was asked for; the state is as it was."""


class TooManyErrandsError(ErrandError):
    """`ERRANDS_MAX` of them wait."""

    def __init__(self) -> None:
        super().__init__(f"{ERRANDS_MAX} hashes and defragmentations wait already; try again later")


class SupersededError(ErrandError):
    """A snapshot takes the place of the state that was to be hashed, or it is damaged."""


HashTold = Callable[[int | ErrandError], None]


class Errands:
    """Who waits for which hash or defragmentation; what was asked for is durable first."""

    def __init__(
        self, flush: Callable[[Callable[[], None]], None], send: Callable[[Message], None]
    ) -> None:
        """``flush(done)`` calls ``done`` when everything applied is durable, maybe at once."""
        self._flush = flush
        self._send = send
        self._number = 0
        self._hashes: dict[int, HashTold] = {}
        self._defragmentations: dict[int, Callable[[str], None]] = {}
        self._is_superseded = False

    def hash(self, done: HashTold, kind: str, *arguments: int) -> None:
        """Ask for a hash with the message ``kind``; ``done`` gets it, or why there is none."""
        if self._is_superseded:
            done(SupersededError())
            return
        if self._is_full():
            done(TooManyErrandsError())
            return
        self._number += 1
        number = self._number
        self._hashes[number] = done

        def flushed() -> None:
            if number in self._hashes:
                self._send((kind, number, *arguments))

        self._flush(flushed)

    def hashed(self, number: int, value: int) -> None:
        """The writer has answered; nobody waits for it if it was begun before `supersede`."""
        done = self._hashes.pop(number, None)
        if done is not None:
            done(value)

    def defragment(self, done: Callable[[str], None]) -> None:
        """Ask for a defragmentation; ``done`` gets its error, "" if all is well."""
        if self._is_full():
            done(str(TooManyErrandsError()))
            return
        self._number += 1
        number = self._number
        self._defragmentations[number] = done
        self._flush(lambda: self._send((DEFRAGMENT, number)))

    def defragmented(self, number: int, error: str) -> None:
        """The writer has answered."""
        self._defragmentations.pop(number)(error)

    def supersede(self) -> None:
        """Another state is about to be adopted: no hash of this one is wanted until `go_on`.

        A hash that waited for it would be another state's, under this one's revisions.
        """
        self._is_superseded = True
        hashes, self._hashes = self._hashes, {}
        for done in hashes.values():
            done(SupersededError())

    def go_on(self) -> None:
        """The other state is there."""
        self._is_superseded = False

    def _is_full(self) -> bool:
        return len(self._hashes) + len(self._defragmentations) >= ERRANDS_MAX


class Compactions:
    """Which compactions are left to do, and who waits for them."""

    def __init__(self) -> None:
        self._revisions: list[int] = []
        self._waiters: list[tuple[int, Callable[[], None]]] = []

    @property
    def is_pending(self) -> bool:
        return bool(self._revisions)

    def schedule(self, revision: int) -> None:
        """One more is to be done."""
        self._revisions.append(revision)

    def wait(self, revision: int, done: Callable[[], None]) -> bool:
        """Call ``done`` when none up to ``revision`` is left; False: that is at once."""
        if any(left <= revision for left in self._revisions):
            self._waiters.append((revision, done))
            return True
        done()
        return False

    def finish(self, revision: int) -> None:
        """Those up to ``revision`` are done."""
        self._revisions = [left for left in self._revisions if left > revision]
        self.hand_over(self)

    def hand_over(self, successor: Compactions) -> None:
        """Let everybody wait for what ``successor`` has to do, if anything."""
        waiters, self._waiters = self._waiters, []
        for revision, done in waiters:
            successor.wait(revision, done)


def interrupted_compaction(reader: StateReader) -> int:
    """Return the revision of a compaction that was begun and not finished; 0: there is none."""
    scheduled = reader.bucket_get(BUCKET_META, META_SCHEDULED)
    finished = reader.bucket_get(BUCKET_META, META_FINISHED)
    if scheduled is None or (finished is not None and finished >= scheduled):
        return 0
    return parse_revision_key(scheduled)[0]
