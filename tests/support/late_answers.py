"""Txns run to the end of their answers, whatever steps that takes."""

from __future__ import annotations

from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.long_entry import LongEntryError
from etcdtw.mvcc.store import Store
from etcdtw.wire.requests import Txn


def apply_txn(store: Store, request: Txn) -> Applied:
    """Apply a txn, in steps if it is long, and make what is late of its answer."""
    try:
        applied = store.apply_txn(request)
    except LongEntryError as long:
        while True:
            try:
                next(long.steps)
            except StopIteration as end:
                applied = end.value
                break
    return finish(applied)


def read_txn(store: Store, request: Txn) -> Applied:
    """Run a read-only txn."""
    return finish(store.read_txn(request))


def finish(applied: Applied) -> Applied:
    """Return the outcome with its whole body.  May raise an `MvccError`."""
    if applied.late is None:
        return applied
    slices = applied.late.open()
    parts: list[bytes] = []
    while (part := slices.step()) is not None:
        assert slices.held >= 0
        parts.append(part)
    assert slices.held == 0
    return Applied(applied.revision, b"".join(parts))
