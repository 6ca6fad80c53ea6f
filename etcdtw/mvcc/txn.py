"""Txns: guards, then one branch, as one revision or not at all.

Three passes over the request: choose the path by the compares, check everything on it, run it.
Only the third one writes, and it cannot fail.  What compares and ranges look at is bounded: beyond
that, compares take steps before anything is done, and ranges are read after the txn (`late`).

Source: etcd v3 api, TxnRequest.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

from etcdtw.mvcc.backend import Backend
from etcdtw.mvcc.compare import Path, Seen, choose_path, choose_path_steps
from etcdtw.mvcc.errors import (
    CompactedError,
    FutureRevisionError,
    KeyNotFoundError,
    LeaseNotFoundError,
)
from etcdtw.mvcc.late import LateRange, LateTxn
from etcdtw.mvcc.long_entry import is_long_delete
from etcdtw.mvcc.ranges import (
    count_body,
    is_shaped,
    is_sorted,
    open_end,
    plain_body,
    read_range,
    view_of,
)
from etcdtw.mvcc.slices import SLICE_OCTETS_MAX, slice_range
from etcdtw.mvcc.txn_budget import Budget, TooMuchError
from etcdtw.mvcc.views import View, Writes
from etcdtw.mvcc.work_bounds import FEW_KEYS_MAX, WorkBounds
from etcdtw.mvcc.writer import Writer
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import encode_varint
from etcdtw.wire.requests import Put, Txn

TxnBody = bytes | LateTxn
"""A TxnResponse without its header, or all of it that is known yet."""

COUNT_ROWS: Final = 250  # rows that a count looks at: two fences in part
SHAPED_ROWS: Final = 250  # rows that one slice of an old or a parsed range counts for


class LongTxnError(Exception):
    """The txn looks at or deletes very many keys.  Nothing was changed; ``steps`` runs it."""

    def __init__(self, steps: Generator[None, None, TxnBody]) -> None:
        super().__init__("a txn touches very many keys")
        self.steps = steps


class Transactor:
    """Runs txns over a backend.  One per store."""

    def __init__(
        self,
        backend: Backend,
        writer: Writer,
        lease_exists: Callable[[int], bool],
        bounds: WorkBounds,
    ) -> None:
        self._bounds = bounds
        self._budget = Budget()
        self._backend = backend
        self._writer = writer
        self._lease_exists = lease_exists
        self._compact_revision = -1
        self._seen: Seen = {}
        self._deleted: list[tuple[bytes, bytes | None]] = []
        self._octets_read = 0
        self._weighs_all = False  # a write reads the record before it, and many may be large
        self._unweighed = 0
        self._has_ranges = False
        self._writes = Writes()  # of the entry, if it has ranges
        self._header_revision = -1
        self._header = b""
        self.txns_total = 0
        """Txns of more than one operation."""
        self.ranges_total = 0

    def run(self, request: Txn, compact_revision: int) -> TxnBody:
        """Run a txn and return the body of its response; the caller finishes the revision.

        Raises an `MvccError`, or `LongTxnError`, before anything was changed.
        """
        self._compact_revision = compact_revision
        self._seen = {}
        self._budget.fill(self._bounds.txn_rows_max)
        try:
            path = choose_path(self._backend, request, self._seen, self._budget)
        except TooMuchError:
            raise LongTxnError(self._run_steps(request)) from None
        self._check_all(request, path)
        if self._is_long():
            raise LongTxnError(self._finish_steps(request, path))
        body, _ = self._execute(request, path, 0)
        return body

    def _run_steps(self, request: Txn) -> Generator[None, None, TxnBody]:
        """`run` in steps.  Raises an `MvccError` before anything was changed."""
        path = yield from choose_path_steps(View(self._backend, self, self.revision), request, {})
        self._seen = {}
        self._budget.fill(self._bounds.txn_rows_max)
        self._check_all(request, path)
        if self._is_long():
            body, _ = yield from self._execute_steps(request, path, 0)
        else:
            body, _ = self._execute(request, path, 0)
        return body

    def _finish_steps(self, request: Txn, path: Path) -> Generator[None, None, TxnBody]:
        body, _ = yield from self._execute_steps(request, path, 0)
        return body

    def run_late(self, request: Txn, path: Path, compact_revision: int) -> TxnBody:
        """Check and answer a read-only txn whose path is known; all its ranges are late.

        Raises an `MvccError`.
        """
        self._compact_revision = compact_revision
        self._seen = {}
        self._budget.fill(0)
        self._check_all(request, path)
        body, _ = self._execute(request, path, 0)
        return body

    # `Revisions`, as an entry sees them.

    @property
    def revision(self) -> int:
        return self._writer.view_revision

    @property
    def compact_revision(self) -> int:
        return self._compact_revision

    @property
    def bounds(self) -> WorkBounds:
        return self._bounds

    def _reads_much(self) -> bool:
        return self._octets_read > self._bounds.long_octets_min

    def _is_long(self) -> bool:
        if self._reads_much():
            return True
        if not self._deleted:
            return False
        ranges = [interval for interval in self._deleted if not _is_of_one(interval)]
        return is_long_delete(self._backend, ranges, self._bounds)

    # Checks, all against the state before the txn.

    def _check_all(self, request: Txn, path: Path) -> None:
        self._deleted = []
        self._octets_read = 0
        self._weighs_all = self._backend.large_octets() > self._bounds.long_octets_min
        self._unweighed = 0
        self._has_ranges = False
        self._check(request, path, 0)
        if self._has_ranges:
            self._writes = Writes()

    def _check(self, request: Txn, path: Path, position: int) -> int:
        """Check the branch taken; returns the position in ``path`` behind this txn."""
        ops = request.success if path[position] else request.failure
        position += 1
        for op in ops:
            if op.put is not None:
                self._check_put(op.put)
            elif op.range is not None:
                self._has_ranges = True
                self._check_range(op.range.revision)
            elif op.delete_range is not None:
                deletion = op.delete_range
                interval = _interval(deletion)
                self._deleted.append(interval)
                if _is_of_one(interval) and (deletion.prev_kv or self._is_next_weighed()):
                    self._weigh(deletion.key)
            elif op.txn is not None:
                position = self._check(op.txn, path, position)
        return position

    def _check_put(self, request: Put) -> None:
        lease = request.lease
        if lease and not self._lease_exists(lease):
            raise LeaseNotFoundError(lease)
        if request.ignore_value or request.ignore_lease:
            key = request.key
            # An earlier delete to the end of all keys passes the overlap check, etcd's too; but
            # what is to be kept is gone then.  Real members die of such an entry.
            if not self._weigh(key) or any(
                start <= key and (end is None or key < end) for start, end in self._deleted
            ):
                raise KeyNotFoundError
        elif request.prev_kv or self._is_next_weighed():
            self._weigh(request.key)

    def _is_next_weighed(self) -> bool:
        """Whether to weigh the next record that a write reads, but neither keeps nor tells."""
        if not self._weighs_all or self._reads_much():
            return False
        self._unweighed += 1
        return self._unweighed > FEW_KEYS_MAX

    def _weigh(self, key: bytes) -> bool:
        """Return whether ``key`` is live; add up how large the records are that writes read."""
        if self._reads_much():
            return bool(self._backend.keys(key, key + b"\0"))
        record = self._backend.get(key)
        self._octets_read += len(record or b"")
        return record is not None

    def _check_range(self, revision: int) -> None:
        # Unlike a plain range, a negative revision is not "current" here.
        if revision == 0:
            return
        if revision > self._writer.revision:
            raise FutureRevisionError(revision, self._writer.revision)
        if revision < self._compact_revision:
            raise CompactedError(revision, self._compact_revision)

    # Execution.

    def _execute(self, request: Txn, path: Path, position: int) -> tuple[TxnBody, int]:
        """Run the branch taken.

        Returns the TxnResponse without its header, and the position in ``path`` behind it.
        """
        succeeded = path[position]
        parts: list[Any] = [b"\x10\x01"] if succeeded else []
        ops = request.success if succeeded else request.failure
        self.txns_total += len(ops) > 1
        position += 1
        is_late = False
        for op in ops:
            if op.put is not None:
                response = self._put(op.put)
            elif op.range is not None:
                answer = self._range(op.range)
                if isinstance(answer, LateRange):
                    is_late = True
                    parts.append(answer)
                    continue
                response = answer
            elif op.delete_range is not None:
                response = self._delete_range(op.delete_range)
            elif op.txn is not None:
                body, position = self._execute(op.txn, path, position)
                if isinstance(body, LateTxn):
                    is_late = True
                    parts.append(body)
                    continue
                response = _nested(body)
            else:
                response = b""  # an unset operation never passes the check before the proposal
            parts.append(b"\x1a" + encode_varint(len(response)) + response)
        return LateTxn(parts) if is_late else b"".join(parts), position

    def _execute_steps(
        self, request: Txn, path: Path, position: int
    ) -> Generator[None, None, tuple[TxnBody, int]]:
        """`_execute` in steps, for a txn that deletes very many keys or tells of large values."""
        parts: list[Any] = [b"\x10\x01"] if path[position] else []
        ops = request.success if path[position] else request.failure
        self.txns_total += len(ops) > 1
        position += 1
        is_late = False
        size = 0
        for op in ops:
            if op.put is not None:
                response = self._put(op.put)
            elif op.range is not None:
                answer = self._range(op.range)
                if isinstance(answer, LateRange):
                    is_late = True
                    parts.append(answer)
                    continue
                response = answer
            elif op.delete_range is not None and op.delete_range.range_end:
                self._note_delete(op.delete_range)
                _, made = yield from self._writer.delete_range_steps(op.delete_range)
                body_size = sum(map(len, made))
                head = self._head(b"\x1a", body_size)
                parts.append(b"\x1a%b%b" % (encode_varint(len(head) + body_size), head))
                parts += made
                size += body_size
                yield
                continue
            elif op.delete_range is not None:
                response = self._delete_range(op.delete_range)
            else:
                assert op.txn is not None, "an unset operation passed the check"
                nested, position = yield from self._execute_steps(op.txn, path, position)
                if isinstance(nested, LateTxn):
                    is_late = True
                    parts.append(nested)
                    continue
                response = _nested(nested)
            parts.append(b"\x1a%b%b" % (encode_varint(len(response)), response))
            size += len(response)
            yield
        is_large = size > SLICE_OCTETS_MAX  # too large to be joined
        return LateTxn(parts) if is_late or is_large else b"".join(parts), position

    def _put(self, request: Put) -> bytes:
        # Without a delete before it the key is still what the compares saw.
        seen = None if self._deleted or request.prev_kv else self._seen.get(request.key)
        body = b""
        if seen is not None:
            self._writer.put_over(request, seen)
        else:
            old = self._backend.get(request.key)
            self._writer.put(request, old)
            if old is not None and request.prev_kv:
                body = b"\x12%b%b" % (encode_varint(len(old)), old)
        if self._has_ranges:
            record = self._backend.get(request.key)
            assert record is not None, "a put left nothing"
            self._writes.puts[request.key] = record
        return self._with_header(b"\x12", body)

    def _range(self, request: pb.RangeRequest) -> bytes | LateRange:
        self.ranges_total += 1
        body = self._read(request)
        if body is not None:
            return self._with_header(b"\x0a", body)
        # What comes behind a range that is late is not read at once: it might be as much.
        self._budget.rows_left = 0
        revision = view_of(request.revision, self._writer.view_revision, self._compact_revision)
        writes: Writes | None = None
        if not revision:
            revision = self._writer.revision
            if self._writer.changes:
                writes = self._writes.copy()
        return LateRange(request, self._header_octets(), revision, writes)

    def _read(self, request: pb.RangeRequest) -> bytes | None:
        """Return the body of a range, or None if it takes more than is left of the budget."""
        budget = self._budget
        rows_max = budget.rows_left
        if rows_max <= 0 or budget.octets_left <= 0:
            return None
        backend = self._backend
        current = self._writer.view_revision
        if not request.range_end:
            budget.rows_left = rows_max - 1
            body = read_range(backend, request, current, self._compact_revision)
            budget.octets_left -= len(body)
            return body
        view = view_of(request.revision, current, self._compact_revision)
        end = open_end(request.range_end)
        if end is not None and end <= request.key:
            return b""
        is_large = not 0 < request.limit <= rows_max or is_sorted(request)
        if is_large and not view and not request.count_only:
            # Most large ranges are recognised without reading a part of them in vain.
            least = backend.count_least(request.key, end)
            if least > rows_max:
                return None
        if view or is_shaped(request):
            budget.rows_left = rows_max - SHAPED_ROWS
            slices = slice_range(View(backend, self, view or current), request)
            found = slices.step() or b""
            budget.octets_left -= len(found)
            return found if slices.is_finished else None
        if request.count_only:
            budget.rows_left = rows_max - COUNT_ROWS
            return count_body(backend.count(request.key, end))
        limit = request.limit
        wanted = limit if 0 < limit <= rows_max else rows_max + 1
        octets_max = budget.octets_left
        pieces, count = backend.pieces(request.key, end, wanted, octets_max + 1)
        budget.rows_left = rows_max - count
        budget.octets_left -= sum(map(len, pieces))
        if budget.rows_left < 0 or budget.octets_left < 0:
            return None
        if 0 < limit == count:
            budget.rows_left -= COUNT_ROWS
        return plain_body(backend, request.key, end, limit, pieces, count)

    def _delete_range(self, request: pb.DeleteRangeRequest) -> bytes:
        self._note_delete(request)
        _, body = self._writer.delete_range(request)
        return self._with_header(b"\x1a", body)

    def _note_delete(self, request: pb.DeleteRangeRequest) -> None:
        if self._has_ranges:
            self._writes.delete(*_interval(request))

    def _header_octets(self) -> bytes:
        """Return a response's header that holds the revision alone, as its first field."""
        revision = self._writer.view_revision
        if revision != self._header_revision:
            octets = encode_varint(revision)
            self._header = b"\x0a" + encode_varint(len(octets) + 1) + b"\x18" + octets
            self._header_revision = revision
        return self._header

    def _head(self, tag: bytes, size: int) -> bytes:
        """Return what stands before a body of ``size`` in a ResponseOp: the header holds the
        revision alone."""
        header = self._header_octets()
        return tag + encode_varint(len(header) + size) + header

    def _with_header(self, tag: bytes, body: bytes) -> bytes:
        """Return a ResponseOp."""
        return self._head(tag, len(body)) + body


def _nested(body: bytes) -> bytes:
    """Return the response of a nested txn.  The header is there, and empty."""
    return b"\x22%b\x0a\x00%b" % (encode_varint(len(body) + 2), body)


def _interval(request: pb.DeleteRangeRequest) -> tuple[bytes, bytes | None]:
    if not request.range_end:
        return request.key, request.key + b"\0"
    return request.key, open_end(request.range_end)


def _is_of_one(interval: tuple[bytes, bytes | None]) -> bool:
    """Whether one key at the most is in it: it is weighed by itself, not looked at as a range."""
    return interval[1] == interval[0] + b"\0"
