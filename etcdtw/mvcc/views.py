"""The key space at one revision while the store moves on.

A view is the current table as long as little was written since it was pinned: what was, is
noted, and read from history instead.  Later, or when it was old from the start, all of it is.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final, Protocol

from etcdtw.mvcc.backend import Backend, Row
from etcdtw.mvcc.errors import CompactedError
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.wire.encode import encode_varint

TOUCHED_KEYS_MAX: Final = 65_536  # keys noted; with more, views are read from history
TOUCHED_KEY_SIZE_MAX: Final = 1024  # octets; nor are longer ones noted
CORRECTIONS_MAX: Final = 500  # keys looked at to correct one count
INSERTED_MAX: Final = 64  # new keys put in their places one by one


class Touched:
    """The keys written since a view was pinned, in order of time.  One list for all views."""

    __slots__ = ("is_whole", "keys", "views_count")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.is_whole = True
        """False: there were too many, and nothing is noted any more."""
        self.views_count = 0

    def add(self, key: bytes) -> None:
        if self.is_whole:
            if len(self.keys) >= TOUCHED_KEYS_MAX or len(key) > TOUCHED_KEY_SIZE_MAX:
                self.forget()
            else:
                self.keys.append(key)

    def forget(self) -> None:
        """Be of no use: another state came, or too much was written."""
        self.is_whole = False
        self.keys = []


class Revisions(Protocol):
    """Where the store stands now."""

    @property
    def revision(self) -> int: ...

    @property
    def compact_revision(self) -> int: ...

    @property
    def bounds(self) -> WorkBounds: ...


class View:
    """One revision.  It holds no compaction back: reading raises `CompactedError` then.

    ``touched`` holds whatever is written from now on, and ``changed`` what was written since
    ``revision``; without the first the view can do without, or must.
    """

    def __init__(
        self,
        backend: Backend,
        revisions: Revisions,
        revision: int,
        touched: Touched | None = None,
        changed: list[bytes] | None = None,
    ) -> None:
        self.revision = revision
        self.bounds = revisions.bounds
        self._backend = backend
        self._revisions = revisions
        self._touched = touched
        self._position = 0
        if touched is not None:
            self._position = len(touched.keys)
            touched.views_count += 1
        self._noted: set[bytes] = set()
        self._changed: list[bytes] = []  # the same, in order
        if changed:
            self._note(changed)

    def close(self) -> None:
        """Let go of what is noted for this view; it is not read again."""
        touched, self._touched = self._touched, None
        if touched is not None:
            touched.views_count -= 1

    @property
    def is_current(self) -> bool:
        """Whether the current table is this view."""
        return self.revision == self._revisions.revision

    def rows(
        self, start: bytes, end: bytes | None, rows_max: int, octets_max: int
    ) -> tuple[list[Row], bytes | None]:
        """As `Backend.rows`; of history at most `WorkBounds.slice_past_keys_max` rows.

        Raises `CompactedError`.
        """
        self._check()
        backend = self._backend
        if self._is_noted():
            rows, behind = backend.rows(start, end, 0, rows_max, octets_max)
            self._absorb()
            changed = self._changed
            i = bisect_left(changed, start)
            last = end if behind is None else behind
            j = len(changed) if last is None else bisect_left(changed, last, i)
            if j - i > self.bounds.slice_past_keys_max:
                j = i + self.bounds.slice_past_keys_max
                behind = changed[j]
                rows = [row for row in rows if row[0] < behind]
            if i < j:
                revision = self.revision
                rows = _patched(
                    rows, [(key, backend.get_at(key, revision)) for key in changed[i:j]]
                )
        elif self.revision == self._revisions.revision:
            rows, behind = backend.rows(start, end, 0, rows_max, octets_max)
        else:
            rows_max = min(rows_max, self.bounds.slice_past_keys_max)
            rows, behind = backend.rows(start, end, self.revision, rows_max, octets_max)
        return rows, behind

    def count(self, start: bytes, end: bytes | None) -> int | None:
        """Return how many keys there are, or None when that takes steps."""
        if self.is_current:
            return self._backend.count(start, end)
        if not self._is_noted():
            return None
        self._check()
        self._absorb()
        i = bisect_left(self._changed, start)
        j = len(self._changed) if end is None else bisect_left(self._changed, end, i)
        if j - i > CORRECTIONS_MAX:
            return None
        backend = self._backend
        total = backend.count(start, end)
        for key in self._changed[i:j]:
            total += backend.get_at(key, self.revision) is not None
            total -= backend.get(key) is not None
        return total

    def count_some(
        self, start: bytes, end: bytes | None, rows_max: int
    ) -> tuple[int, bytes | None]:
        """Count some keys; return where to go on, too."""
        if self._is_noted():
            rows, behind = self.rows(start, end, rows_max, 0)
            return len(rows), behind
        self._check()
        rows_max = min(rows_max, self.bounds.slice_past_keys_max)
        return self._backend.count_some(start, end, self.revision, rows_max)

    def _check(self) -> None:
        compact_revision = self._revisions.compact_revision
        if compact_revision > self.revision:
            raise CompactedError(self.revision, compact_revision)

    def _is_noted(self) -> bool:
        return self._touched is not None and self._touched.is_whole

    def _absorb(self) -> None:
        """Take what was written since the last look."""
        touched = self._touched
        assert touched is not None, "nothing is noted"
        if self._position < len(touched.keys):
            keys = touched.keys[self._position :]
            self._position = len(touched.keys)
            self._note(keys)

    def _note(self, keys: list[bytes]) -> None:
        fresh = set(keys) - self._noted
        self._noted |= fresh
        if len(fresh) > INSERTED_MAX:
            self._changed = sorted(self._noted)
        else:
            for key in fresh:
                insort(self._changed, key)


class Writes:
    """What an entry has written so far: puts, and deleted ranges."""

    def __init__(self) -> None:
        self.puts: dict[bytes, bytes] = {}
        self.deleted: list[tuple[bytes, bytes | None]] = []

    def copy(self) -> Writes:
        made = Writes()
        made.puts = dict(self.puts)
        made.deleted = list(self.deleted)
        return made

    def delete(self, start: bytes, end: bytes | None) -> None:
        """Note a delete of ``[start, end)``."""
        self.deleted.append((start, end))
        for key in [key for key in self.puts if key >= start and (end is None or key < end)]:
            del self.puts[key]

    def lay_over(self, rows: list[Row], start: bytes, end: bytes | None) -> list[Row]:
        """Return the rows of ``[start, end)`` as they are with this."""
        for first, last in self.deleted:
            i = bisect_left(rows, (first,))
            del rows[i : len(rows) if last is None else bisect_left(rows, (last,), i)]
        puts: list[tuple[bytes, bytes | None]] = [
            (key, record)
            for key, record in self.puts.items()
            if key >= start and (end is None or key < end)
        ]
        return _patched(rows, puts) if puts else rows


class WrittenView(View):
    """A view with an entry's own writes on top of it."""

    def __init__(self, base: View, writes: Writes) -> None:
        self.revision = base.revision
        self.bounds = base.bounds
        self._base = base
        self._own = writes

    def close(self) -> None:
        """The view below is another's."""

    @property
    def is_current(self) -> bool:
        return False

    def rows(
        self, start: bytes, end: bytes | None, rows_max: int, octets_max: int
    ) -> tuple[list[Row], bytes | None]:
        rows, behind = self._base.rows(start, end, rows_max, octets_max)
        return self._own.lay_over(rows, start, end if behind is None else behind), behind

    def count(self, start: bytes, end: bytes | None) -> int | None:
        return None

    def count_some(
        self, start: bytes, end: bytes | None, rows_max: int
    ) -> tuple[int, bytes | None]:
        rows, behind = self.rows(start, end, rows_max, 0)
        return len(rows), behind


def _patched(rows: list[Row], changed: list[tuple[bytes, bytes | None]]) -> list[Row]:
    """Return ``rows`` with other records for some keys; None: the key is not there."""
    found = dict(rows)
    for key, record in changed:
        if record is None:
            found.pop(key, None)
        else:
            found[key] = b"\x12%b%b" % (encode_varint(len(record)), record)
    return sorted(found.items())
