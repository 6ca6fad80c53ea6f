"""What a KV request must satisfy before it is proposed or read.

Pure functions of the request; they raise `StatusError` with etcd's code and text.  The rules,
and their order, are those of etcd 3.7.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection
from typing import Final

from etcdtw.grpc.call import UNIMPLEMENTED, StatusError
from etcdtw.rpc.errors import status_error
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import Op, Put, Txn

TXN_OPS_MAX: Final = 128

_SORT_ORDERS: Final = (pb.RangeRequest.NONE, pb.RangeRequest.ASCEND, pb.RangeRequest.DESCEND)
_SORT_TARGETS: Final = (
    pb.RangeRequest.KEY,
    pb.RangeRequest.VERSION,
    pb.RangeRequest.CREATE,
    pb.RangeRequest.MOD,
    pb.RangeRequest.VALUE,
)

Interval = tuple[bytes, bytes]
"""(start, exclusive end); nothing lies in it when the end is not above the start."""


def check_range(request: pb.RangeRequest) -> None:
    """Refuse an empty key and sort options that are none."""
    if not request.key:
        raise status_error("EmptyKey")
    if request.sort_order not in _SORT_ORDERS or request.sort_target not in _SORT_TARGETS:
        raise status_error("InvalidSortOption")


def check_range_stream(request: pb.RangeRequest) -> None:
    """As `check_range`; and a stream has only the key's order, and no filters."""
    check_range(request)
    is_key_order = (
        request.sort_order == pb.RangeRequest.ASCEND and request.sort_target == pb.RangeRequest.KEY
    )
    if request.sort_order != pb.RangeRequest.NONE and not is_key_order:
        raise StatusError(UNIMPLEMENTED, "RangeStream does not support custom sort orders")
    if (
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    ):
        raise StatusError(UNIMPLEMENTED, "RangeStream does not support revision filters")


def check_put(request: Put) -> None:
    """Refuse an empty key, and a value or lease that is also to be kept."""
    if not request.key:
        raise status_error("EmptyKey")
    if request.ignore_value and request.value:
        raise status_error("ValueProvided")
    if request.ignore_lease and request.lease:
        raise status_error("LeaseProvided")


def check_delete_range(request: pb.DeleteRangeRequest) -> None:
    """Refuse an empty key."""
    if not request.key:
        raise status_error("EmptyKey")


def check_txn(request: Txn, ops_max: int = TXN_OPS_MAX) -> None:
    """Check a txn with everything nested in it.

    A nested txn may have as many operations as its parent leaves of ``ops_max``, so the depth is
    bounded as well.
    """
    if _check_ops(request, ops_max):
        _check_puts(request.success)
        _check_puts(request.failure)


def _check_ops(request: Txn, ops_max: int) -> bool:
    """Check each operation; returns whether any two could be in each other's way."""
    compares = request.compare
    success = request.success
    failure = request.failure
    ops_count = max(len(compares), len(success), len(failure))
    if ops_count > ops_max:
        raise status_error("TooManyOps")
    for compare in compares:
        if not compare.key:
            raise status_error("EmptyKey")
    is_nested = False
    for op in success:
        is_nested |= _check_op(op, ops_max - ops_count)
    for op in failure:
        is_nested |= _check_op(op, ops_max - ops_count)
    # One plain operation in a branch is the common case.
    return is_nested or len(success) > 1 or len(failure) > 1


def _check_op(op: Op, ops_left: int) -> bool:
    """Check one operation; returns whether it is a nested txn."""
    if op.put is not None:
        check_put(op.put)
    elif op.range is not None:
        check_range(op.range)
    elif op.delete_range is not None:
        check_delete_range(op.delete_range)
    elif op.txn is not None:
        _check_ops(op.txn, ops_left)
        return True
    else:
        raise status_error("KeyNotFound")
    return False


# Overlaps.  No key may be put twice on one way through the txn, nor put and deleted; only the two
# branches of one nested txn exclude each other and may put the same key.


def _check_puts(ops: list[Op]) -> tuple[set[bytes], list[Interval]]:
    """Check one branch.  Returns the keys it may put and the intervals it may delete."""
    puts: set[bytes] = set()
    deletes = [_interval(op.delete_range) for op in ops if op.delete_range is not None]
    for op in ops:
        if op.txn is not None:
            nested_puts, nested_deletes = _check_nested(op.txn)
            if not puts.isdisjoint(nested_puts) or _any_in(nested_puts, deletes):
                raise status_error("DuplicateKey")
            puts |= nested_puts
            deletes += nested_deletes
    own_puts = [op.put.key for op in ops if op.put is not None]
    puts_count = len(puts) + len(own_puts)
    puts.update(own_puts)
    if len(puts) != puts_count or _any_in(own_puts, deletes):
        raise status_error("DuplicateKey")
    return puts, deletes


def _check_nested(request: Txn) -> tuple[set[bytes], list[Interval]]:
    then_puts, then_deletes = _check_puts(request.success)
    else_puts, else_deletes = _check_puts(request.failure)
    return then_puts | else_puts, then_deletes + else_deletes


def _interval(request: pb.DeleteRangeRequest) -> Interval:
    # etcd's quirk, seen on 3.5.1: here "\0" is an end like any other, so that a delete to the
    # end of all keys overlaps no put.
    key = request.key
    return key, request.range_end or key + b"\0"


def _any_in(keys: Collection[bytes], intervals: list[Interval]) -> bool:
    """Tell whether one of ``keys`` lies in one of ``intervals``.

    Both may be as many as ``max-txn-ops`` allows, so the intervals are merged and searched.
    """
    if not keys or not intervals:
        return False
    starts: list[bytes] = []
    ends: list[bytes] = []
    for start, end in sorted(intervals):
        if ends and start <= ends[-1]:
            ends[-1] = max(ends[-1], end)
        elif start < end:
            starts.append(start)
            ends.append(end)
    for key in keys:
        i = bisect_right(starts, key) - 1
        if i >= 0 and key < ends[i]:
            return True
    return False


# What the request needs: a quorum, the log, or neither.


def is_read_only(request: Txn) -> bool:
    """Tell whether both branches hold nothing but ranges (a nested txn is none)."""
    for ops in (request.success, request.failure):
        for op in ops:
            if op.range is None:
                return False
    return True


def is_serializable(request: Txn) -> bool:
    """Tell whether a read-only txn accepts local data: every range says so, or there is none."""
    for ops in (request.success, request.failure):
        for op in ops:
            if op.range is None or not op.range.serializable:
                return False
    return True
