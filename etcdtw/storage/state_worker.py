"""What the writer does with messages: commits at once, compaction and hashes in between.

Knows no sockets: `state_writer` is the process around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from etcdtw.storage.state_compaction import compact
from etcdtw.storage.state_hash import hash_all, hash_kv
from etcdtw.storage.state_tables import Batch, StateCommitter, Tables

# Messages: ("changes", rows), ("commit", number, *batch), ("compact", revision),
# ("hash_kv", id, revision, compact_revision), ("hash_all", id).
# Answers: ("committed", number), ("compacted", revision), ("hash", id, crc).
CHANGES: Final = "changes"
COMMIT: Final = "commit"
COMMITTED: Final = "committed"
COMPACT: Final = "compact"
COMPACTED: Final = "compacted"
HASH_KV: Final = "hash_kv"
HASH_ALL: Final = "hash_all"
HASH: Final = "hash"
SWOLLEN_CHANGES_MIN: Final = 5000
READY: Final = "ready"
FAILED: Final = "failed"


class StateWorker:
    """One generation at a time, one background job at a time, oldest first."""

    def __init__(
        self, tables: Tables, map_size: int, answer: Callable[[tuple[Any, ...]], None]
    ) -> None:
        self._tables = tables
        self._committer = StateCommitter(tables, map_size)
        self._answer = answer
        self._jobs: list[Iterator[tuple[Any, ...] | None]] = []

    def receive(self, message: tuple[Any, ...]) -> None:
        """Do, or begin, what a message asks for."""
        kind = message[0]
        if kind == CHANGES:
            self._committer.add(message[1])
        elif kind == COMMIT:
            self._committer.commit(Batch(*message[2:]))
            self._answer((COMMITTED, message[1]))
        elif kind == COMPACT:
            self._jobs.append(compact(self._tables, message[1], self._committer.grow))
        elif kind == HASH_KV:
            self._jobs.append(hash_kv(self._tables, *message[1:]))
        elif kind == HASH_ALL:
            self._jobs.append(hash_all(self._tables, message[1]))
        else:
            raise ValueError(f"no such message: {kind!r}")

    def has_work(self) -> bool:
        """Whether a background job waits for `work`."""
        return bool(self._jobs)

    def is_swollen(self) -> bool:
        """Whether LMDB may hold much memory of past commits that `reopen` would free.

        It keeps the buffers of all pages that one transaction touched for the next one.
        """
        return not self._jobs and self._committer.changes_since_reopen >= SWOLLEN_CHANGES_MIN

    def reopen(self, open_tables: Callable[[int], Tables]) -> None:
        """Open the environment anew with ``open_tables(map_size)``; nothing else may use it."""
        self._tables.env.close()
        self._tables = open_tables(self._committer.map_size)
        self._committer.reopen(self._tables)

    def work(self) -> None:
        """Do one bounded step of the oldest background job."""
        try:
            answer = next(self._jobs[0])
        except StopIteration:
            self._jobs.pop(0)
            return
        if answer is not None:
            self._answer(answer)
