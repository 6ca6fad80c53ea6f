"""What the writer does with messages: commits at once, compaction and hashes in between.

Knows no sockets: `main` is the process around it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb

from etcdtw.storage.disk.directory import DATA_FILE
from etcdtw.storage.disk.free_pages import reusable_octets
from etcdtw.storage.disk.old_file import OldFile
from etcdtw.storage.integrity.sweeper import DAMAGED, MEND, Sweeper
from etcdtw.storage.rows.codec import COMPACTIONS_MAX, TABLE_PRIVATE
from etcdtw.storage.rows.compaction import STEP_ROWS_MAX, compact
from etcdtw.storage.rows.compaction_hash import RunningHash, interrupted, last_finished
from etcdtw.storage.rows.seal import StateDamageError
from etcdtw.storage.rows.tables import (
    ANONYMOUS_OCTETS_MAX,
    Batch,
    StateCommitter,
    Tables,
    anonymous_octets,
)
from etcdtw.storage.writer.defragment import Defragmentation
from etcdtw.storage.writer.hashes import HASH_ROWS_MAX, hash_all, hash_kv

# Messages: ("changes", packed), ("attachments", rows), ("bucket_rows", rows),
# ("commit", number, *batch), ("compact", revision),
# ("hash_kv", id, revision, compact_revision), ("hash_all", id), ("defragment", id),
# ("reopened", id), ("adopt", index), ("dispose", path), ("mend", name), ("measure", pages).
# Answers: ("committed", number, seconds), ("compaction_step", rows deleted, seconds),
# ("compaction_hash", revision, the one before, crc, is any key live),
# ("compacted", revision, seconds, unix time),
# ("hash", id, crc),
# ("defragmented", id, whether the file is another one, error), ("adopted",),
# ("reusable", pages, octets), ("mended", name, error), ("damaged", table, name, why),
# ("swept", rows, seconds, findings).
CHANGES: Final = "changes"
ATTACHMENTS: Final = "attachments"
BUCKET_ROWS: Final = "bucket_rows"
COMMIT: Final = "commit"
COMMITTED: Final = "committed"
COMPACT: Final = "compact"
COMPACTED: Final = "compacted"
COMPACTION_STEP: Final = "compaction_step"
COMPACTION_HASH: Final = "compaction_hash"
HASH_KV: Final = "hash_kv"
HASH_ALL: Final = "hash_all"
HASH: Final = "hash"
DEFRAGMENT: Final = "defragment"
DEFRAGMENTED: Final = "defragmented"
REOPENED: Final = "reopened"
"""The member reads the file that this defragmentation, or anything later, put in place."""
ADOPT: Final = "adopt"
ADOPTED: Final = "adopted"
DISPOSE: Final = "dispose"
"""Nobody needs the file any more."""
MEASURE: Final = "measure"
REUSABLE: Final = "reusable"
LEISURE_SHARE: Final = 0.5  # of the time, for hashing, copying and freeing: the rest is for commits
SUPERSEDED: Final = "a snapshot is about to take the place of this state"
PAGE_ERRORS: Final = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.CursorFullError)
"""LMDB met a page that cannot be as it was written."""
SWOLLEN_MESSAGES_MIN: Final = 10  # of changes, 512 in each
READY: Final = "ready"
FAILED: Final = "failed"


class Pace(NamedTuple):
    """How fast compactions and sweeps may go."""

    rows_max: int = STEP_ROWS_MAX
    """Rows looked at in one step."""
    pause_s: float = 0.0
    """Rest between two steps."""
    sweep_interval_s: float = 0.0
    """How long a sweep over the whole state may take, and when the next begins; 0: none is."""


FULL_PACE: Final = Pace()


def _no_time() -> float:
    """The time where nobody measures it."""
    return 0.0


class StateWorker:
    """One generation at a time, one background job at a time, oldest first."""

    def __init__(
        self,
        tables: Tables,
        map_size: int,
        answer: Callable[[tuple[Any, ...]], None],
        pace: Pace = FULL_PACE,
        seconds: Callable[[], float] = _no_time,
        unix_s: Callable[[], float] = _no_time,
        *,
        defragmentation: Callable[[Tables, int], Defragmentation] | None = None,
        adopt: Callable[[int, int], Tables] | None = None,
        hash_rows_max: int = HASH_ROWS_MAX,
    ) -> None:
        """``defragmentation(tables, map_size)`` makes one; None: there is nothing to do, as where
        the reader shares the environment.  ``adopt(index, map_size)`` swaps a built state in
        while nothing is open, and opens it (`snapshot.install`)."""
        self._make_defragmentation = defragmentation
        self._adopt = adopt
        self._old_files: list[tuple[int, OldFile]] = []
        self._hash_rows_max = hash_rows_max
        self._pace = pace
        self._seconds = seconds
        self._unix_s = unix_s
        self._rests_until_s = 0.0
        self._tables = tables
        self._committer = StateCommitter(tables, map_size)
        self._collect: dict[str, Callable[[Any], None]] = {
            CHANGES: self._committer.add,
            ATTACHMENTS: self._committer.attach,
            BUCKET_ROWS: self._committer.put_in_buckets,
        }
        self._answer = answer
        self._measured, self._reusable_octets = (0, 0, ""), 0
        self._jobs: list[Iterator[tuple[Any, ...] | None]] = []
        self._waiting_compactions: list[Iterator[tuple[Any, ...] | None]] = []
        self.sweeper = Sweeper(tables, answer, seconds, pace.sweep_interval_s)
        """Has its turn when nothing else is to do."""
        self._is_abandoned = False  # what jobs delete, hash or copy is about to go altogether
        self._interrupted = interrupted(tables)  # up to here some rows may be gone unhashed

    def receive(self, message: tuple[Any, ...]) -> None:
        """Do, or begin, what a message asks for."""
        kind = message[0]
        collect = self._collect.get(kind)
        if collect is not None:
            collect(message[1])
        elif kind == COMMIT:
            started_s = self._seconds()
            self.sweeper.give_way_if_costly()
            self._committer.commit(Batch(*message[2:]))
            self._answer((COMMITTED, message[1], self._seconds() - started_s))
        elif kind == COMPACT:
            self._queue_compaction(self._compaction(message[1]))
        elif kind == HASH_KV:
            _, number, revision, compacted = message
            job = hash_kv(self._tables, number, revision, compacted, self._hash_rows_max)
            self._jobs.append(self._hash(job))
        elif kind == HASH_ALL:
            self._jobs.append(self._hash(hash_all(self._tables, message[1], self._hash_rows_max)))
        elif kind == DEFRAGMENT:
            self._jobs.append(self._defragmentation(message[1]))
        elif kind == REOPENED:
            self._shrink_before(message[1])
        elif kind == ADOPT:
            self._is_abandoned = True
            self._rests_until_s = 0.0
            self._jobs.append(self._adoption(message[1]))
        elif kind == MEASURE:
            self._answer((REUSABLE, message[1], self._reusable(message[1])))
        elif kind == MEND:
            self.sweeper.mend(message[1])
        elif kind == DISPOSE:
            self._dispose(Path(message[1]))
        else:
            raise ValueError(f"no such message: {kind!r}")

    def _reusable(self, row: int) -> int:
        env = self._tables.env
        seen = (row, env.info()["last_txnid"], env.readers())
        if seen != self._measured:
            self._measured, self._reusable_octets = seen, 0
            with suppress(OSError):  # what is not known is not counted on
                file = Path(env.path()) / DATA_FILE
                self._reusable_octets = reusable_octets(file, row, seen[2])
        return self._reusable_octets

    def _queue_compaction(self, job: Iterator[tuple[Any, ...] | None]) -> None:
        """Put a compaction behind the other jobs; of very many that wait the oldest is left out.

        A later one does what it would have done, and whoever waits for it waits for that.
        """
        self._jobs.append(job)
        self._waiting_compactions.append(job)
        if len(self._waiting_compactions) > COMPACTIONS_MAX:
            self._jobs.remove(self._waiting_compactions.pop(0))

    def _compaction(self, revision: int) -> Iterator[tuple[Any, ...] | None]:
        begun_s = started_s = self._seconds()
        running = RunningHash(last_finished(self._tables))
        rows_max = self._pace.rows_max
        for deleted in compact(self._tables, revision, self._committer.grow, rows_max, running):
            ended_s = self._seconds()
            self._rests_until_s = ended_s + self._pace.pause_s
            if self._is_abandoned:
                self._rests_until_s = 0.0
                return
            yield (COMPACTION_STEP, deleted, ended_s - started_s)
            started_s = self._seconds()
        self._rests_until_s = 0.0
        if revision > self._interrupted:
            yield (COMPACTION_HASH, revision, running.previous, running.value, running.has_live)
        yield (COMPACTED, revision, self._seconds() - begun_s, self._unix_s())

    def _hash(self, steps: Generator[tuple[Any, ...] | None]) -> Iterator[tuple[Any, ...] | None]:
        answers: list[tuple[Any, ...]] = []

        def step() -> bool:
            if self._is_abandoned:
                steps.close()  # and its transaction: the member has told whoever asked
                return True
            answer = next(steps)
            if answer is not None:
                answers.append(answer)
            return answer is not None

        yield from self._at_leisure(step)
        yield from answers

    def _defragmentation(self, number: int) -> Iterator[tuple[Any, ...] | None]:
        """As the oldest job: no other one has a transaction open, and no row is deleted."""
        if self._make_defragmentation is None:
            yield (DEFRAGMENTED, number, False, "")
            return
        work = self._make_defragmentation(self._tables, self._committer.map_size)

        def step() -> bool:
            if self._is_abandoned:
                work.give_up(SUPERSEDED)
            return work.step()

        self._committer.follower = work
        yield from self._at_leisure(step)
        self._committer.follower = None
        if work.old_file is not None:
            self._old_files.append((number, work.old_file))
        yield (DEFRAGMENTED, number, not work.error, work.error)

    def _shrink_before(self, number: int) -> None:
        """The member reads none of the files that were there before this defragmentation's."""
        while self._old_files and self._old_files[0][0] <= number:
            self._jobs.append(self._at_leisure(self._old_files.pop(0)[1].shrink))

    def _dispose(self, file: Path) -> None:
        """Take the name away now, the octets in steps: the journal waits while a file goes.

        Before any other job, which may be long: the room is somebody's.
        """
        with suppress(OSError):  # it is gone already, or stays until the member's next start
            old = OldFile(file)
            file.unlink()
            self._jobs.insert(0, self._at_leisure(old.shrink))

    def _at_leisure(self, step: Callable[[], bool]) -> Iterator[None]:
        """Do steps until one is the last, each followed by a rest, which commits may use."""
        started_s = self._seconds()
        while not step():
            ended_s = self._seconds()
            if not self._is_abandoned:  # else a new state waits, and there are no commits
                self._rests_until_s = ended_s + (ended_s - started_s) * (1 / LEISURE_SHARE - 1)
            yield None
            started_s = self._seconds()
        self._rests_until_s = 0.0

    def _adoption(self, index: int) -> Iterator[tuple[Any, ...] | None]:
        """One step, as the oldest job; what was collected for a commit is the old state's."""
        adopt = self._adopt
        assert adopt is not None, "the reader shares the environment"
        self._tables.replace(lambda: adopt(index, self._committer.map_size))
        self._committer.start_over()
        self._is_abandoned = False
        self.sweeper.start_over()
        self._interrupted = interrupted(self._tables)
        yield (ADOPTED,)

    @property
    def rest_s(self) -> float:
        """How long until the next step is due."""
        return max(self._rests_until_s - self._seconds(), 0.0)

    def has_work(self) -> bool:
        """Whether a background job waits for `work`."""
        return bool(self._jobs)

    def is_swollen(self) -> bool:
        """Whether LMDB may hold much memory of past commits that `reopen` would free.

        It keeps the buffers of all pages that one transaction touched for the next one.
        """
        return not self._jobs and self._committer.changes_since_reopen >= SWOLLEN_MESSAGES_MIN

    def is_too_large(self) -> bool:
        """Whether that memory must not wait for an idle moment.  To be asked after a commit."""
        return self.is_swollen() and anonymous_octets() > ANONYMOUS_OCTETS_MAX

    def reopen(self, open_tables: Callable[[int], Tables]) -> None:
        """Open the environment anew with ``open_tables(map_size)``; nothing else may use it."""
        self.sweeper.give_way()
        self._tables.replace(lambda: open_tables(self._committer.map_size))
        self._committer.reopen()

    def work(self) -> None:
        """Do one bounded step of the oldest background job, unless it rests."""
        if self._rests_until_s and self._seconds() < self._rests_until_s:
            return
        self.sweeper.give_way()
        job = self._jobs[0]
        if self._waiting_compactions and job is self._waiting_compactions[0]:
            self._waiting_compactions.pop(0)
        try:
            answer = next(job)
        except StopIteration:
            self._jobs.pop(0)
            return
        except StateDamageError as error:
            self._give_up_job((DAMAGED, error.table, error.name, error.why))
            return
        except PAGE_ERRORS as error:
            self._give_up_job((DAMAGED, TABLE_PRIVATE, b"", str(error)))
            return
        if answer is not None:
            self._answer(answer)

    def _give_up_job(self, why: tuple[Any, ...]) -> None:
        """What the oldest job was for comes to nothing."""
        self._jobs.pop(0)
        self._rests_until_s = 0.0
        self._answer(why)
