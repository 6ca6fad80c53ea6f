"""What the state waits for beside its generations: answers of the writer, and compactions.

Knows no messages: what was asked, and how, is the state's.
"""

from __future__ import annotations

from collections.abc import Callable

from etcdtw.mvcc.backend import BUCKET_META
from etcdtw.storage.state_codec import META_FINISHED, META_SCHEDULED, parse_revision_key
from etcdtw.storage.state_reader import StateReader


class Errands:
    """Who waits for which answer of the writer."""

    def __init__(self) -> None:
        self._number = 0
        self._waiters: dict[int, Callable[..., None]] = {}

    def expect(self, done: Callable[..., None]) -> int:
        """Return the number to ask with; ``done`` gets what `answer` is called with."""
        self._number += 1
        self._waiters[self._number] = done
        return self._number

    def answer(self, number: int, *found: object) -> None:
        """The writer has answered."""
        self._waiters.pop(number)(*found)


class Compactions:
    """Which compactions are left to do, and who waits for them."""

    def __init__(self) -> None:
        self._revisions: list[int] = []
        self._waiters: list[tuple[int, Callable[[], None]]] = []

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
