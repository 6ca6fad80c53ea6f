"""The guards of a txn: comparisons of stored keys with given values.

All of them, those of nested txns included, look at the state before the txn.

Source: etcd v3 api, Compare.
"""

from __future__ import annotations

from typing import Final

from etcdtw.mvcc.backend import Backend
from etcdtw.mvcc.long_entry import STEP_OCTETS_MAX, ends_range
from etcdtw.mvcc.ranges import open_end
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

COMPARE_KEYS_MAX: Final = 1_000  # keys of a range that are parsed at a time

_ABSENT: Final = Record(b"")

Path = list[bool]
"""Which branch each txn takes: the txn itself, then the nested txns of that branch, in order
and each with its own nested ones behind it."""


Seen = dict[bytes, Record]
"""Live keys that compares looked up, parsed: a put of the same key need not do it again."""


def choose_path(backend: Backend, request: Txn, seen: Seen) -> Path:
    """Evaluate the compares of ``request`` and of every nested txn that will run.

    Fills ``seen``.
    """
    path: Path = []
    _extend_path(backend, request, path, seen)
    return path


def _extend_path(backend: Backend, request: Txn, path: Path, seen: Seen) -> None:
    # The depth is bounded by the check before the proposal (each level costs an operation),
    # and by protobuf's own limit of 100 nested messages.
    succeeded = True
    for compare in request.compare:
        if not holds(backend, compare, seen):
            succeeded = False
            break
    path.append(succeeded)
    for op in request.success if succeeded else request.failure:
        if op.txn is not None:
            _extend_path(backend, op.txn, path, seen)


def holds(backend: Backend, compare: Compare, seen: Seen) -> bool:
    """Tell whether every key that ``compare`` names satisfies it.

    An absent key (or an empty range) is compared as zeros; its value equals nothing and
    differs from nothing.
    """
    if not compare.range_end:
        key = compare.key
        record = backend.get(key)
        if record is None:
            return _absent_holds(compare)
        found = seen[key] = Record(record)
        return record_holds(found, compare)
    return _range_holds(backend, compare)


def _range_holds(backend: Backend, compare: Compare) -> bool:
    start = compare.key
    end = open_end(compare.range_end)
    if end is not None and end <= start:
        return _absent_holds(compare)
    is_empty = True
    while True:
        frames = backend.frames(start, end, COMPARE_KEYS_MAX, STEP_OCTETS_MAX)
        key = b""
        for frame in frames:
            found = Record(record_of(bytes(frame)))
            if not record_holds(found, compare):
                return False
            key = found.key
        is_empty = is_empty and not frames
        if ends_range(frames, COMPARE_KEYS_MAX):
            return _absent_holds(compare) if is_empty else True
        start = key + b"\0"


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
