"""Txns: guards, then one branch, as one revision or not at all.

Three passes over the request: choose the path by the compares, check everything on it, run it.
Only the third one writes, and it cannot fail.

Source: etcd v3 api, TxnRequest.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from etcdtw.mvcc.backend import Backend
from etcdtw.mvcc.compare import Path, Seen, choose_path
from etcdtw.mvcc.errors import (
    CompactedError,
    FutureRevisionError,
    KeyNotFoundError,
    LeaseNotFoundError,
)
from etcdtw.mvcc.ranges import open_end, read_range
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.mvcc.writer import Writer
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import encode_varint
from etcdtw.wire.requests import Put, Txn


class LongTxnError(Exception):
    """The txn deletes very many keys.  Nothing was changed; ``steps`` runs it."""

    def __init__(self, steps: Generator[None, None, tuple[bytes, int]]) -> None:
        super().__init__("a txn deletes very many keys")
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
        self._long_keys_min = bounds.long_keys_min
        self._backend = backend
        self._writer = writer
        self._lease_exists = lease_exists
        self._compact_revision = -1
        self._seen: Seen = {}
        self._deleted: list[tuple[bytes, bytes | None]] = []
        self._header_revision = -1
        self._header = b""
        self.txns_total = 0
        """Txns of more than one operation."""
        self.ranges_total = 0

    def run(self, request: Txn, compact_revision: int) -> bytes:
        """Run a txn and return the body of its response; the caller finishes the revision.

        Raises an `MvccError`, or `LongTxnError`, before anything was changed.
        """
        self._compact_revision = compact_revision
        self._seen = {}
        path = choose_path(self._backend, request, self._seen)
        self._deleted = []
        self._check(request, path, 0)
        if self._deleted and self._is_long():
            raise LongTxnError(self._execute_steps(request, path, 0))
        body, _ = self._execute(request, path, 0)
        return body

    def _is_long(self) -> bool:
        count = self._backend.count
        ranges = [pair for pair in self._deleted if pair[1] != pair[0] + b"\0"]
        return sum([count(start, end) for start, end in ranges]) >= self._long_keys_min

    # Checks, all against the state before the txn.

    def _check(self, request: Txn, path: Path, position: int) -> int:
        """Check the branch taken; returns the position in ``path`` behind this txn."""
        ops = request.success if path[position] else request.failure
        position += 1
        for op in ops:
            if op.put is not None:
                self._check_put(op.put)
            elif op.range is not None:
                self._check_range(op.range.revision)
            elif op.delete_range is not None:
                self._deleted.append(_interval(op.delete_range))
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
            if self._backend.get(key) is None or any(
                start <= key and (end is None or key < end) for start, end in self._deleted
            ):
                raise KeyNotFoundError

    def _check_range(self, revision: int) -> None:
        # Unlike a plain range, a negative revision is not "current" here.
        if revision == 0:
            return
        if revision > self._writer.revision:
            raise FutureRevisionError(revision, self._writer.revision)
        if revision < self._compact_revision:
            raise CompactedError(revision, self._compact_revision)

    # Execution.

    def _execute(self, request: Txn, path: Path, position: int) -> tuple[bytes, int]:
        """Run the branch taken.

        Returns the TxnResponse without its header, and the position in ``path`` behind it.
        """
        succeeded = path[position]
        parts = [b"\x10\x01"] if succeeded else []
        ops = request.success if succeeded else request.failure
        self.txns_total += len(ops) > 1
        position += 1
        for op in ops:
            if op.put is not None:
                response = self._put(op.put)
            elif op.range is not None:
                response = self._range(op.range)
            elif op.delete_range is not None:
                response = self._delete_range(op.delete_range)
            elif op.txn is not None:
                body, position = self._execute(op.txn, path, position)
                # The header of a nested txn is there, and empty.
                response = b"\x22%b\x0a\x00%b" % (encode_varint(len(body) + 2), body)
            else:
                response = b""  # an unset operation never passes the check before the proposal
            parts.append(b"\x1a%b%b" % (encode_varint(len(response)), response))
        return b"".join(parts), position

    def _execute_steps(
        self, request: Txn, path: Path, position: int
    ) -> Generator[None, None, tuple[bytes, int]]:
        """`_execute` in steps, for a txn that deletes very many keys."""
        parts = [b"\x10\x01"] if path[position] else []
        ops = request.success if path[position] else request.failure
        self.txns_total += len(ops) > 1
        position += 1
        for op in ops:
            if op.put is not None:
                response = self._put(op.put)
            elif op.range is not None:
                response = self._range(op.range)
            elif op.delete_range is not None and op.delete_range.range_end:
                _, body = yield from self._writer.delete_range_steps(op.delete_range)
                response = self._with_header(b"\x1a", body)
            elif op.delete_range is not None:
                response = self._delete_range(op.delete_range)
            else:
                assert op.txn is not None, "an unset operation passed the check"
                body, position = yield from self._execute_steps(op.txn, path, position)
                response = b"\x22%b\x0a\x00%b" % (encode_varint(len(body) + 2), body)
            parts.append(b"\x1a%b%b" % (encode_varint(len(response)), response))
            yield
        return b"".join(parts), position

    def _put(self, request: Put) -> bytes:
        # Without a delete before it the key is still what the compares saw.
        seen = None if self._deleted or request.prev_kv else self._seen.get(request.key)
        if seen is not None:
            self._writer.put_over(request, seen)
            return self._with_header(b"\x12", b"")
        old = self._backend.get(request.key)
        self._writer.put(request, old)
        body = b""
        if old is not None and request.prev_kv:
            body = b"\x12%b%b" % (encode_varint(len(old)), old)
        return self._with_header(b"\x12", body)

    def _range(self, request: pb.RangeRequest) -> bytes:
        self.ranges_total += 1
        body = read_range(
            self._backend, request, self._writer.view_revision, self._compact_revision
        )
        return self._with_header(b"\x0a", body)

    def _delete_range(self, request: pb.DeleteRangeRequest) -> bytes:
        _, body = self._writer.delete_range(request)
        return self._with_header(b"\x1a", body)

    def _with_header(self, tag: bytes, body: bytes) -> bytes:
        """Return a ResponseOp whose response's header holds the revision alone."""
        revision = self._writer.view_revision
        if revision != self._header_revision:
            octets = encode_varint(revision)
            self._header = b"\x0a%b\x18%b" % (encode_varint(len(octets) + 1), octets)
            self._header_revision = revision
        header = self._header
        return b"%b%b%b%b" % (tag, encode_varint(len(header) + len(body)), header, body)


def _interval(request: pb.DeleteRangeRequest) -> tuple[bytes, bytes | None]:
    if not request.range_end:
        return request.key, request.key + b"\0"
    return request.key, open_end(request.range_end)
