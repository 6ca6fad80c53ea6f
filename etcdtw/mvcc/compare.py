"""The guards of a txn: comparisons of stored keys with given values.

All of them, those of nested txns included, look at the state before the txn.

Source: etcd v3 api, Compare.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from etcdtw.mvcc.backend import Backend
from etcdtw.mvcc.ranges import open_end
from etcdtw.mvcc.txn_budget import Budget, TooMuchError
from etcdtw.mvcc.views import View
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.record import Record, record_of
from etcdtw.wire.requests import Compare, Txn

EQUAL: Final = pb.Compare.EQUAL
GREATER: Final = pb.Compare.GREATER
LESS: Final = pb.Compare.LESS
NOT_EQUAL: Final = pb.Compare.NOT_EQUAL

VERSION: Final = pb.Compare.VERSION
CREATE: Final = pb.Compare.CREATE
MOD: Final = pb.Compare.MOD
VALUE: Final = pb.Compare.VALUE
LEASE: Final = pb.Compare.LEASE

COMPARE_KEYS_MAX: Final = 400  # keys of a range that are parsed at a time
COMPARE_OCTETS_MAX: Final = 1 << 18

_ABSENT: Final = Record(b"")

Path = list[bool]
"""Which branch each txn takes: the txn itself, then the nested txns of that branch, in order
and each with its own nested ones behind it."""


Seen = dict[bytes, Record]
"""Live keys that compares looked up, parsed: a put of the same key need not do it again."""


def choose_path(backend: Backend, request: Txn, seen: Seen, budget: Budget) -> Path:
    """Evaluate the compares of ``request`` and of every nested txn that will run.

    Fills ``seen``.  Raises `TooMuchError` when that looks at more than ``budget``.
    """
    path: Path = []
    _extend_path(backend, request, path, seen, budget)
    return path


def _extend_path(backend: Backend, request: Txn, path: Path, seen: Seen, budget: Budget) -> None:
    # The depth is bounded by the check before the proposal (each level costs an operation),
    # and by protobuf's own limit of 100 nested messages.
    succeeded = True
    for compare in request.compare:
        if compare.range_end:
            succeeded = _range_holds(backend, compare, budget)
        else:
            record = backend.get(compare.key)
            if record is not None:
                budget.octets_left -= len(record)
                if budget.octets_left < 0:
                    raise TooMuchError
            succeeded = _key_holds(record, compare, seen)
        if not succeeded:
            break
    path.append(succeeded)
    for op in request.success if succeeded else request.failure:
        if op.txn is not None:
            _extend_path(backend, op.txn, path, seen, budget)


def _key_holds(record: bytes | None, compare: Compare, seen: Seen) -> bool:
    """Compare the record of one key; None: absent, which is compared as zeros."""
    if record is None:
        return _absent_holds(compare)
    found = seen[compare.key] = Record(record)
    return record_holds(found, compare)


def _range_holds(backend: Backend, compare: Compare, budget: Budget) -> bool:
    """Tell whether every key of a range satisfies ``compare``; an empty one is as an absent key."""
    start = compare.key
    end = open_end(compare.range_end)
    if end is not None and end <= start:
        return _absent_holds(compare)
    position: bytes | None = start
    is_empty = True
    while position is not None:
        if budget.rows_left <= 0 or budget.octets_left < 0:
            raise TooMuchError
        rows, position = backend.rows(position, end, 0, budget.rows_left, budget.octets_left + 1)
        budget.rows_left -= max(len(rows), 1)
        for _, frame in rows:
            budget.octets_left -= len(frame)
            if not record_holds(Record(record_of(frame)), compare):
                return False
        is_empty = is_empty and not rows
    return _absent_holds(compare) if is_empty else True


def choose_path_steps(view: View, request: Txn, seen: Seen) -> Generator[None, None, Path]:
    """`choose_path` in steps over one view.  Raises `CompactedError`."""
    path: Path = []
    yield from _extend_path_steps(view, request, path, seen)
    return path


def _extend_path_steps(
    view: View, request: Txn, path: Path, seen: Seen
) -> Generator[None, None, None]:
    succeeded = True
    for compare in request.compare:
        if compare.range_end:
            succeeded = yield from _range_holds_steps(view, compare)
        else:
            rows, _ = view.rows(compare.key, compare.key + b"\0", 1, 0)
            record = record_of(rows[0][1]) if rows else None
            succeeded = _key_holds(record, compare, seen)
            yield
        if not succeeded:
            break
    path.append(succeeded)
    for op in request.success if succeeded else request.failure:
        if op.txn is not None:
            yield from _extend_path_steps(view, op.txn, path, seen)


def _range_holds_steps(view: View, compare: Compare) -> Generator[None, None, bool]:
    end = open_end(compare.range_end)
    position: bytes | None = compare.key
    if end is not None and end <= compare.key:
        return _absent_holds(compare)
    is_empty = True
    while position is not None:
        rows, position = view.rows(position, end, COMPARE_KEYS_MAX, COMPARE_OCTETS_MAX)
        for _, frame in rows:
            if not record_holds(Record(record_of(frame)), compare):
                return False
        is_empty = is_empty and not rows
        yield
    return _absent_holds(compare) if is_empty else True


def _absent_holds(compare: Compare) -> bool:
    return compare.target != VALUE and record_holds(_ABSENT, compare)


def record_holds(record: Record, compare: Compare) -> bool:
    """Compare one key.  An unknown target compares 0 with 0; an unknown result holds."""
    target = compare.target
    if target == VALUE:
        return _value_holds(record.value, compare)
    if target == MOD:
        difference = record.mod_revision - compare.number
    elif target == CREATE:
        difference = record.create_revision - compare.number
    elif target == VERSION:
        difference = record.version - compare.number
    elif target == LEASE:
        difference = record.lease - compare.number
    else:
        difference = 0
    return _difference_holds(difference, compare.result)


def _value_holds(stored: bytes, compare: Compare) -> bool:
    given = compare.value
    difference = 0 if stored == given else (1 if stored > given else -1)
    return _difference_holds(difference, compare.result)


def _difference_holds(difference: int, result: int) -> bool:
    if result == EQUAL:
        return difference == 0
    if result == NOT_EQUAL:
        return difference != 0
    if result == GREATER:
        return difference > 0
    if result == LESS:
        return difference < 0
    return True
