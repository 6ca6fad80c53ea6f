"""The multi-version store: requests in, outcomes and events out.

Every ``apply_*`` is a pure function of (state, request): it checks everything before its first
change, and answers errors as part of the outcome.  Knows no Raft, no leases' deadlines, no
watchers and no disk; records live behind `mvcc.backend.Backend`.

    revision           1 when empty; +1 for each entry that changed at least one key
    compact_revision   -1 at first; reads below it fail
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final

from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.backend import BUCKET_META, Backend
from etcdtw.mvcc.compare import Path
from etcdtw.mvcc.errors import (
    CompactedError,
    FutureRevisionError,
    KeyNotFoundError,
    LeaseNotFoundError,
    MvccError,
)
from etcdtw.mvcc.late import LateRead, LateTxn, LateTxnRead, MadeAnswer
from etcdtw.mvcc.long_entry import STEP_OCTETS_MAX, DeleteLook, LongEntryError, Steps
from etcdtw.mvcc.ranges import COUNT_OF_ONE, open_end, read_range
from etcdtw.mvcc.slices import SLICE_OCTETS_MAX, PinnedRange, RangeSlices, open_slices
from etcdtw.mvcc.txn import LongTxnError, Transactor, TxnBody
from etcdtw.mvcc.views import Touched, View
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.mvcc.writer import Event, Writer
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import encode_varint
from etcdtw.wire.record import Record
from etcdtw.wire.requests import Put, Txn

WORK_BOUNDS: Final = WorkBounds()
SCHEDULED_COMPACT_REVISION = b"scheduledCompactRev"
FINISHED_COMPACT_REVISION = b"finishedCompactRev"


class Store:
    """The keys of one member.  ``lease_exists`` asks the lessor, which apply feeds too."""

    def __init__(
        self,
        backend: Backend,
        lease_exists: Callable[[int], bool],
        bounds: WorkBounds = WORK_BOUNDS,
    ) -> None:
        self.bounds = bounds
        self._backend = backend
        self._lease_exists = lease_exists
        self._writer = Writer(backend, bounds)
        self._transactor = Transactor(backend, self._writer, lease_exists, bounds)
        # Reads get a place of their own: they happen in the midst of long entries too.
        self._read_writer = Writer(backend, bounds)
        self._read_transactor = Transactor(backend, self._read_writer, lease_exists, bounds)
        self._is_watched = False
        self._is_long = False
        self.revision = 1
        self.compact_revision = -1
        self._ranges_total = 0

    def restore(self, revision: int) -> None:
        """Take up where the backend stands: at boot, or after a snapshot was installed.

        ``revision`` is the current main revision as storage persisted it (0 or 1: empty).
        """
        self.compact_revision = max(
            self._compact_mark(SCHEDULED_COMPACT_REVISION),
            self._compact_mark(FINISHED_COMPACT_REVISION),
        )
        self.revision = max(revision, self.compact_revision, 1)
        # A long entry may have been under way: what it did is of no state any more.
        self._is_long = False
        self._writer.restart(self.revision, self._is_watched)

    def _compact_mark(self, name: bytes) -> int:
        mark = self._backend.bucket_get(BUCKET_META, name)
        return -1 if mark is None else int.from_bytes(mark[:8], "big")

    # What was done since the start.

    @property
    def puts_total(self) -> int:
        return self._writer.puts_total

    @property
    def put_octets_total(self) -> int:
        """Octets of keys and values."""
        return self._writer.put_octets_total

    @property
    def deletes_total(self) -> int:
        """Keys deleted."""
        return self._writer.deletes_total

    @property
    def ranges_total(self) -> int:
        in_txns = self._transactor.ranges_total + self._read_transactor.ranges_total
        return self._ranges_total + in_txns

    @property
    def txns_total(self) -> int:
        """Txns of more than one operation."""
        return self._transactor.txns_total + self._read_transactor.txns_total

    # Events.

    @property
    def has_watchers(self) -> bool:
        """Whether anybody wants events; the watch hub sets it."""
        return self._is_watched

    @has_watchers.setter
    def has_watchers(self, wanted: bool) -> None:
        self._is_watched = wanted
        # A watcher that comes in the midst of a long entry must get all of it.
        self._writer.has_watchers = wanted or self._is_long

    @property
    def events(self) -> list[Event]:
        """The events collected since `take_events`, in revision order."""
        return self._writer.events

    def take_events(self) -> list[Event]:
        """Return and forget the events: ``(key, is_delete, record)`` in revision order."""
        writer = self._writer
        events = writer.events
        if self._is_long:
            return []
        if events:
            writer.events = []
        return events

    # Changes.

    def apply_put(self, request: Put) -> Applied:
        lease = request.lease
        if lease and not self._lease_exists(lease):
            return Applied(self.revision, b"", LeaseNotFoundError(lease))
        old = self._backend.get(request.key)
        writer = self._writer
        if old is None:
            if request.ignore_value or request.ignore_lease:
                return Applied(self.revision, b"", KeyNotFoundError())
            writer.put(request, None)
            self.revision = revision = writer.finish()
            return Applied(revision)
        writer.put(request, old)
        self.revision = revision = writer.finish()
        if request.prev_kv:
            return Applied(revision, b"\x12%b%b" % (encode_varint(len(old)), old))
        return Applied(revision)

    def apply_delete_range(self, request: pb.DeleteRangeRequest) -> Applied:
        """Raises `LongEntryError`."""
        frames = None
        if request.range_end:
            look = DeleteLook(self._backend, self.bounds)
            frames = look.add(request.key, open_end(request.range_end))
            if look.is_long:
                raise LongEntryError(self._delete_range_steps(request))
        _, body = self._writer.delete_range(request, frames)
        self.revision = self._writer.finish()
        return Applied(self.revision, body)

    def _delete_range_steps(self, request: pb.DeleteRangeRequest) -> Steps:
        self._begin_long()
        _, parts = yield from self._writer.delete_range_steps(request)
        if sum(map(len, parts)) <= SLICE_OCTETS_MAX:
            return self._end_long(b"".join(parts))
        applied = self._end_long(b"")
        applied.late = MadeAnswer(parts, applied.revision)
        return applied

    def _begin_long(self) -> None:
        self._is_long = True
        self._writer.has_watchers = True

    def _end_long(self, body: bytes) -> Applied:
        self._is_long = False
        self._writer.has_watchers = self._is_watched
        if not self._is_watched:
            events, self._writer.events = self._writer.events, []
            self._backend.let_go(events)
        self.revision = self._writer.finish()
        return Applied(self.revision, body)

    def apply_txn(self, request: Txn) -> Applied:
        """Raises `LongEntryError`."""
        try:
            body = self._transactor.run(request, self.compact_revision)
        except MvccError as error:
            return Applied(self.revision, b"", error)
        except LongTxnError as long:
            raise LongEntryError(self._txn_steps(long.steps)) from None
        if isinstance(body, LateTxn):
            return self._finish_late(body)
        self.revision = self._writer.finish()
        return Applied(self.revision, body)

    def _finish_late(self, txn: LateTxn) -> Applied:
        """End an entry whose answer is still to be made."""
        late = LateRead(self, self._backend, txn, self._writer.revision, self._writer.changes)
        self.revision = self._writer.finish()
        return Applied(self.revision, b"", None, late)

    def _txn_steps(self, steps: Generator[None, None, TxnBody]) -> Steps:
        self._begin_long()
        try:
            body = yield from steps
        except MvccError as error:
            applied = self._end_long(b"")
            applied.error = error
            return applied
        if isinstance(body, LateTxn):
            applied = self._finish_late(body)
            self._end_long(b"")
            return applied
        return self._end_long(body)

    def delete_attached_steps(self, lease_id: int) -> Steps:
        """Delete what is attached to a lease, in steps; all of that must be durable."""
        self._begin_long()
        bounds = self.bounds
        keys: list[bytes] = []
        is_ordered = True
        position = b""
        while True:
            some, position = self._backend.attached_durable(
                lease_id, position, bounds.long_keys_min
            )
            is_ordered = is_ordered and some == sorted(some) and (not keys or keys[-1] < some[0])
            keys += some
            yield None
            if not position:
                break
        if not is_ordered:
            keys.sort()
        count = octets = 0
        for key in keys:
            record = self._backend.get(key)
            if record is not None:
                self._writer.delete(key, Record(record).lease)
                octets += len(record)
            count += 1
            if count >= bounds.step_keys_max or octets >= STEP_OCTETS_MAX:
                yield None
                count = octets = 0
        return self._end_long(b"")

    def delete_attached(self, keys: list[bytes]) -> Applied | None:
        """Delete those of ``keys`` that are live, in key order and as one revision.

        For a lease that ends; without a live key there is no revision.  None: their records are
        too large for one go, and nothing was changed.
        """
        live: list[tuple[bytes, int]] = []
        octets = 0
        for key in sorted(keys):
            record = self._backend.get(key)
            if record is not None:
                live.append((key, Record(record).lease))
                octets += len(record)
                if octets > self.bounds.long_octets_min:
                    return None
        for key, lease in live:
            self._writer.delete(key, lease)
        self.revision = self._writer.finish()
        return Applied(self.revision)

    def apply_compaction(self, request: pb.CompactionRequest) -> Applied:
        """Make ``request.revision`` the oldest readable one; the deleting happens later."""
        revision = request.revision
        if revision <= self.compact_revision:
            error: MvccError = CompactedError(revision, self.compact_revision)
            return Applied(self.revision, b"", error)
        if revision > self.revision:
            error = FutureRevisionError(revision, self.revision)
            return Applied(self.revision, b"", error)
        self.compact_revision = revision
        mark = b"%b_%b" % (revision.to_bytes(8, "big"), bytes(8))
        self._backend.bucket_put(BUCKET_META, SCHEDULED_COMPACT_REVISION, mark)
        self._backend.schedule_compaction(revision)
        return Applied(self.revision)

    # Reads.

    def get_body(self, key: bytes) -> bytes:
        """Return the RangeResponse without its header for one key of the current view."""
        self._ranges_total += 1
        frame = self._backend.frame(key)
        return b"" if frame is None else frame + COUNT_OF_ONE

    def range(self, request: pb.RangeRequest) -> bytes:
        """Return the RangeResponse without its header, at once and however large.

        Raises `FutureRevisionError` or `CompactedError`.
        """
        self._ranges_total += 1
        return read_range(self._backend, request, self.revision, self.compact_revision)

    def open_range(self, request: pb.RangeRequest, head: bytes = b"") -> bytes | RangeSlices:
        """Return ``head`` and the body if it is small, else what yields the body in slices.

        Raises `FutureRevisionError` or `CompactedError`.
        """
        self._ranges_total += 1
        return open_slices(self._backend, self, request, head)

    def pin(self, start: bytes, end: bytes | None, revision: int, limit: int) -> PinnedRange:
        """Return the keys of ``[start, end)`` at ``revision``, to be read piece by piece."""
        return PinnedRange(self.open_view(revision), start, end, limit)

    def open_view(self, revision: int, changed: list[bytes] | None = None) -> View:
        """Return the view at ``revision``; ``changed`` are all keys written since, if known."""
        writer = self._writer
        if self._is_long or (revision < self.revision and changed is None):
            # What is written is not all known: a long entry has begun out of sight.
            return View(self._backend, self, revision)
        touched = writer.touched
        if touched is None or not touched.is_whole or not touched.views_count:
            touched = writer.touched = Touched()
        return View(self._backend, self, revision, touched, changed)

    def read_txn(self, request: Txn) -> Applied:
        """Run a txn whose branches hold nothing but ranges, without an entry."""
        self._read_writer.revision = self.revision
        try:
            body = self._read_transactor.run(request, self.compact_revision)
        except MvccError as error:
            return Applied(self.revision, b"", error)
        except LongTxnError:
            return Applied(self.revision, b"", None, LateTxnRead(self, request))
        assert not self._read_writer.changes, "a read-only txn wrote"
        if isinstance(body, LateTxn):
            late = LateRead(self, self._backend, body, self.revision, 0)
            return Applied(self.revision, b"", None, late)
        return Applied(self.revision, body)

    def answer_late(self, request: Txn, path: Path, revision: int) -> LateTxn:
        """Answer a read-only txn at ``revision``, its path known, with all ranges still to be read.

        Raises an `MvccError`.
        """
        self._read_writer.revision = revision
        body = self._read_transactor.run_late(request, path, self.compact_revision)
        return body if isinstance(body, LateTxn) else LateTxn([body])
