"""Transactions: what must hold, what is done then, and what otherwise.

client.txn().when(version(b"k").equals(0)).then(put(b"k", b"v")).otherwise(get(b"k")).commit()
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar, Unpack

from twisted.internet.defer import Deferred

from etcdtw.client.calls import Calls
from etcdtw.client.keys import (
    DeleteOptions,
    Key,
    PutOptions,
    RangeOptions,
    delete_request,
    key_range,
    octets,
    put_request,
    range_request,
)
from etcdtw.wire import etcdserverpb as pb

_EQUAL, _GREATER, _LESS, _NOT_EQUAL = range(4)
_VERSION, _CREATE, _MOD, _VALUE, _LEASE = range(5)
_FIELDS: Final = ("version", "create_revision", "mod_revision", "value", "lease")

Compared = TypeVar("Compared", int, Key)


class Subject(Generic[Compared]):
    """What of a key, or of each key of a range, is compared."""

    def __init__(self, target: int, key: bytes, range_end: bytes) -> None:
        self._target = target
        self._key = key
        self._range_end = range_end

    def equals(self, other: Compared) -> pb.Compare:
        """It is ``other``."""
        return self._compare(_EQUAL, other)

    def differs(self, other: Compared) -> pb.Compare:
        """It is not ``other``."""
        return self._compare(_NOT_EQUAL, other)

    def is_less(self, other: Compared) -> pb.Compare:
        """It is less than ``other``."""
        return self._compare(_LESS, other)

    def is_greater(self, other: Compared) -> pb.Compare:
        """It is greater than ``other``."""
        return self._compare(_GREATER, other)

    def _compare(self, result: int, other: Compared) -> pb.Compare:
        compare = pb.Compare(
            result=result,
            target=self._target,
            key=self._key,
            range_end=self._range_end,
        )
        told: Any = other if isinstance(other, int) else octets(other)
        setattr(compare, _FIELDS[self._target], told)
        return compare


def version(key: Key, *, range_end: Key | None = None, prefix: bool = False) -> Subject[int]:
    """How often ``key`` was put since it was made; 0: there is no such key."""
    return Subject(_VERSION, *key_range(key, range_end, prefix, False))


def create_revision(
    key: Key, *, range_end: Key | None = None, prefix: bool = False
) -> Subject[int]:
    """The revision that made ``key``; 0: there is no such key."""
    return Subject(_CREATE, *key_range(key, range_end, prefix, False))


def mod_revision(key: Key, *, range_end: Key | None = None, prefix: bool = False) -> Subject[int]:
    """The revision of the last put of ``key``; 0: there is no such key."""
    return Subject(_MOD, *key_range(key, range_end, prefix, False))


def value(key: Key, *, range_end: Key | None = None, prefix: bool = False) -> Subject[Key]:
    """What stands under ``key``; nothing holds of a key that there is not."""
    return Subject(_VALUE, *key_range(key, range_end, prefix, False))


def lease(key: Key, *, range_end: Key | None = None, prefix: bool = False) -> Subject[int]:
    """The lease that ``key`` is attached to; 0: none."""
    return Subject(_LEASE, *key_range(key, range_end, prefix, False))


def put(key: Key, value: Key, **options: Unpack[PutOptions]) -> pb.RequestOp:
    """See `keys.put_request`."""
    return pb.RequestOp(request_put=put_request(key, value, **options))


def get(key: Key, **options: Unpack[RangeOptions]) -> pb.RequestOp:
    """See `keys.range_request`."""
    return pb.RequestOp(request_range=range_request(key, **options))


def delete(key: Key, **options: Unpack[DeleteOptions]) -> pb.RequestOp:
    """See `keys.delete_request`."""
    return pb.RequestOp(request_delete_range=delete_request(key, **options))


def nested(txn: Txn) -> pb.RequestOp:
    """A transaction within one."""
    return pb.RequestOp(request_txn=txn.request)


class Txn:
    """Collects a transaction; ``request`` is what there is of it."""

    def __init__(self, calls: Calls | None = None) -> None:
        self._calls = calls
        self.request = pb.TxnRequest()

    def when(self, *compares: pb.Compare) -> Txn:
        """All of these must hold."""
        self.request.compare.extend(compares)
        return self

    def then(self, *operations: pb.RequestOp) -> Txn:
        """Done if they do."""
        self.request.success.extend(operations)
        return self

    def otherwise(self, *operations: pb.RequestOp) -> Txn:
        """Done if they do not."""
        self.request.failure.extend(operations)
        return self

    def commit(self, *, timeout_ms: int | None = None) -> Deferred[pb.TxnResponse]:
        """Send it.  ``succeeded`` of the answer says which branch was taken."""
        assert self._calls is not None, "a transaction for `nested`"
        return self._calls.txn(self.request, timeout_ms=timeout_ms)
