"""Physical compaction: what lies at or before a revision and no view can see is deleted.

Rows go in revision order, so that a tombstone is never deleted before the versions it hides:
a crash between two steps leaves a store in which every allowed view is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import lmdb

from etcdtw.storage.rows.codec import (
    DEAD,
    LIVE,
    META,
    META_FINISHED,
    TABLE_HISTORY,
    TABLE_KEY,
    encode_version,
    key_of,
    parse_revision_key,
    parse_version,
    revision_key,
    stored_key,
)
from etcdtw.storage.rows.compaction_hash import RunningHash
from etcdtw.storage.rows.seal import SEALS, StateDamageError
from etcdtw.storage.rows.tables import Tables

OUT_OF_ORDER: Final = "a search leads to another place"
STEP_ROWS_MAX: Final = 1000  # rows looked at, and so at most deleted, in one transaction


def compact(
    tables: Tables,
    revision: int,
    grow: Callable[[], None],
    rows_max: int = STEP_ROWS_MAX,
    running: RunningHash | None = None,
) -> Iterator[int]:
    """Yield how many rows were deleted after each step of at most ``rows_max``.

    ``running`` is fed with the rows as they were.

    The rule: a row with main <= ``revision`` goes unless it is its key's newest one there and no
    tombstone; a tombstone at exactly ``revision`` stays until the next compaction.

    Raises `StateDamageError` when a row is not what was written; nothing goes in that step.
    """
    position: bytes | None = revision_key(0, 0)
    deleted = 0
    if running is None:
        running = RunningHash(-1)
    while position is not None:
        before = running.state()
        try:
            with tables.env.begin(write=True) as txn:
                behind, deleted = _step(tables, txn, position, revision, rows_max, running)
                if behind is None:
                    finished = SEALS[META].closed(META_FINISHED, revision_key(revision, 0))
                    txn.put(META_FINISHED, finished, db=tables.handles[META])
        except lmdb.MapFullError:
            running.reset(before)
            grow()
            continue
        position = behind
        yield deleted


def _step(
    tables: Tables,
    txn: Any,
    position: bytes,
    revision: int,
    rows_max: int,
    running: RunningHash,
) -> tuple[bytes | None, int]:
    """Treat up to ``rows_max`` rows from ``position``.

    Returns where to go on, or None, and how many rows were deleted.
    """
    history = tables.handles[TABLE_HISTORY]
    cursor = txn.cursor(tables.handles[TABLE_KEY])
    versions = txn.cursor(history)
    doomed: list[tuple[bytes, bytes, bytes]] = []
    behind: bytes | None = None
    looked = 0
    if not cursor.set_range(position):
        return None, 0
    opened, closed = SEALS[TABLE_KEY].opened, SEALS[TABLE_HISTORY].closed
    before = b""
    for stored, sealed in cursor.iternext():
        if stored < position or stored <= before:  # else it might go round for ever
            raise StateDamageError(TABLE_KEY, stored, OUT_OF_ORDER)
        before = stored
        record = opened(stored, sealed)
        main, sub, is_tombstone = parse_revision_key(stored)
        if main > revision:
            break
        if looked == rows_max:
            behind = stored
            break
        looked += 1
        if is_tombstone and main == revision:
            running.feed(main, stored, record, is_kept=True, is_tombstone=True)
            continue
        name = stored_key(key_of(record)) if record else b""
        if not name:
            running.feed(main, stored, record, is_kept=True, is_tombstone=False)
            continue  # etcd's bump record belongs to no key
        newest = newest_version(versions, name, revision)
        is_kept = not is_tombstone and newest is not None and newest[:2] == (main, sub)
        running.feed(main, stored, record, is_kept=is_kept, is_tombstone=is_tombstone)
        if not is_kept:
            version = encode_version(main, sub, DEAD if is_tombstone else LIVE)
            doomed.append((stored, name, closed(name, version)))
    for stored, name, version in doomed:
        txn.delete(stored, db=tables.handles[TABLE_KEY])
        txn.delete(name, version, db=history)
    return behind, len(doomed)


def newest_version(versions: Any, name: bytes, revision: int) -> tuple[int, int, bool] | None:
    """Return a stored key's newest (main, sub, is_tombstone) up to main ``revision``.

    ``versions`` is a cursor of ``history``.  LMDB's "range" finds the first version at or
    behind the bound; the one before it is the answer.  Both are checked: a damaged one that has
    become larger would hide itself and all from it on.  Raises `StateDamageError`.
    """
    if not name:
        return None  # etcd's bump record belongs to no key
    bound = encode_version(revision + 1, 0, LIVE)
    opened = SEALS[TABLE_HISTORY].opened
    if versions.set_range_dup(name, bound):
        # A damaged branch page may lead beside the place: LMDB does not look again.
        if opened(name, versions.value()) < bound:
            raise StateDamageError(TABLE_HISTORY, name, OUT_OF_ORDER)
        if not versions.prev_dup():
            return None
    elif not (versions.set_key(name) and versions.last_dup()):
        return None
    version = parse_version(opened(name, versions.value()))
    if version[0] > revision:
        raise StateDamageError(TABLE_HISTORY, name, OUT_OF_ORDER)
    return version
