"""HashKV of one member: which revisions it answers, and from where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcdtw.cluster.divergence import KeyHash
from etcdtw.mvcc.errors import CompactedError, FutureRevisionError, MvccError
from etcdtw.mvcc.store import Store
from etcdtw.node.intake.seams import StateStore
from etcdtw.storage.state.errands import ErrandError
from etcdtw.wire.histogram import Histogram, exponential_bounds

Hashed = Callable[[KeyHash | ErrandError | MvccError], None]
HASH_BOUNDS_S: Final = exponential_bounds(0.01, 15)


class KeyHashes:
    """Answers clients, peers and this member's own checks alike."""

    def __init__(self, store: Store, state: StateStore, seconds: Callable[[], float]) -> None:
        self._store = store
        self._state = state
        self._seconds = seconds
        self.duration_s = Histogram(HASH_BOUNDS_S)

    def compute(self, asked: int, hashed: Hashed) -> None:
        """Call ``hashed`` with the hash at revision ``asked``, or why there is none; 0: the newest.

        At the revision of one of the last compactions that is the hash which it found; one that
        is under way is waited for, so that it makes no difference when it ends.
        """
        if 0 < asked <= self._store.compact_revision:
            self._state.on_compacted(asked, lambda: self._compute(asked, hashed))
        else:
            self._compute(asked, hashed)

    def _compute(self, asked: int, hashed: Hashed) -> None:
        store = self._store
        known = self._state.compaction_hashes.find(asked) if asked > 0 else None
        if known is not None:
            hashed(KeyHash(known.value, known.compact_revision, store.revision, asked))
            return
        if asked > store.revision:
            hashed(FutureRevisionError(asked, store.revision))
            return
        # A negative one is older than everything, compacted or not: etcd hashes nothing then.
        if 0 < asked < store.compact_revision:
            hashed(CompactedError(asked, store.compact_revision))
            return
        revision = asked or store.revision
        compact_revision = store.compact_revision
        started_s = self._seconds()

        def done(value: int | ErrandError) -> None:
            if isinstance(value, ErrandError):
                hashed(value)
                return
            self.duration_s.observe(self._seconds() - started_s)
            hashed(KeyHash(value, compact_revision, store.revision, revision))

        # No revision is below zero: what a negative one hashes is what zero would.
        self._state.hash_kv(max(revision, 0), compact_revision, done)
