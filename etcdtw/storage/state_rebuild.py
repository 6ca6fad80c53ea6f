"""Checks the derived tables against ``key``, and makes them anew from it.

``python -m etcdtw.storage.state_rebuild PATH`` does it to a member that is stopped.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from etcdtw.storage.building.renewal import renew
from etcdtw.storage.disk.directory import DataDirError, lock_directory, open_environment
from etcdtw.storage.rows.codec import (
    DEAD,
    LIVE,
    TABLE_ATTACHED,
    TABLE_CURRENT,
    TABLE_FENCES,
    TABLE_HISTORY,
    TABLE_KEY,
    attached_key,
    current_value,
    encode_version,
    key_of,
    lease_of,
    parse_revision_key,
    stored_key,
)
from etcdtw.storage.rows.seal import SEAL_SIZE, SEALS, StateDamageError
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables

COMPLAINTS_MAX: Final = 20
MAP_SIZE: Final = 64 << 30

Rows = Iterator[tuple[bytes, bytes]]


class _Newest:
    """A live key's newest record while ``key`` is walked."""

    __slots__ = ("key", "main", "record", "sub")

    def __init__(self, main: int, sub: int, key: bytes, record: bytes) -> None:
        self.main = main
        self.sub = sub
        self.key = key
        self.record = record


def _walk(tables: Tables, txn: Any) -> tuple[dict[bytes, _Newest], list[tuple[bytes, bytes]]]:
    """Return the live keys by stored name, and every row that ``history`` should have."""
    live: dict[bytes, _Newest] = {}
    history: list[tuple[bytes, bytes]] = []
    opened = SEALS[TABLE_KEY].opened
    for stored, sealed in txn.cursor(tables.handles[TABLE_KEY]):
        record = opened(stored, sealed)
        main, sub, is_tombstone = parse_revision_key(stored)
        key = key_of(record)
        if not key:
            continue  # etcd's bump record
        name = stored_key(key)
        history.append((name, encode_version(main, sub, DEAD if is_tombstone else LIVE)))
        if is_tombstone:
            live.pop(name, None)
        else:
            live[name] = _Newest(main, sub, key, record)
    history.sort()
    return live, history


def _attached_rows(live: dict[bytes, _Newest]) -> list[tuple[bytes, bytes]]:
    rows: list[tuple[bytes, bytes]] = []
    for newest in live.values():
        lease_id = lease_of(newest.record)
        if lease_id:
            name = attached_key(lease_id, newest.key)
            rows.append((name, b"" if name[8:] == newest.key else newest.key))
    return sorted(rows)


def rebuild(tables: Tables, path: Path) -> Tables:
    """Make the state in ``path`` anew from its own `key`; return it, open.

    Raises `StateDamageError` when a row of a bucket is damaged, or `DataDirError`.
    """
    renew(tables, path, MAP_SIZE)
    return Tables(open_environment(path, MAP_SIZE, DATABASES_MAX))


def verify(tables: Tables) -> list[str]:
    """Return what is wrong with the derived tables, one sentence each; empty: nothing."""
    handles = tables.handles
    with tables.env.begin() as txn:
        live, history = _walk(tables, txn)
        current = [
            (name, current_value(live[name].main, live[name].sub, live[name].record))
            for name in sorted(live)
        ]
        complaints = _compare(TABLE_CURRENT, current, iter(txn.cursor(handles[TABLE_CURRENT])))
        complaints += _compare(TABLE_HISTORY, history, iter(txn.cursor(handles[TABLE_HISTORY])))
        attached = _attached_rows(live)
        complaints += _compare(TABLE_ATTACHED, attached, iter(txn.cursor(handles[TABLE_ATTACHED])))
        fences = [(name, count[:-SEAL_SIZE]) for name, count in txn.cursor(handles[TABLE_FENCES])]
    keys = sorted([newest.key for newest in live.values()])
    places = [*[bisect_left(keys, name[1:]) for name, _ in fences], len(keys)]
    for i, (name, count) in enumerate(fences):
        start = name[1:]
        found = places[i + 1] - places[i]
        if found != int.from_bytes(count, "big"):
            complaints.append(f"fences: {found} keys at {start!r} where {count.hex()} are counted")
    return complaints[:COMPLAINTS_MAX]


def _compare(table: bytes, wanted: list[tuple[bytes, bytes]], found: Rows) -> list[str]:
    complaints: list[str] = []
    left = dict.fromkeys(SEALS[table].rows(wanted))
    title = table.decode()
    for row in found:
        if row in left:
            del left[row]
        elif len(complaints) < COMPLAINTS_MAX:
            complaints.append(f"{title}: a row at {row[0]!r} that `key` does not bear out")
    complaints += [f"{title}: the row at {row[0]!r} is missing" for row in list(left)[:5]]
    return complaints


def main(arguments: list[str]) -> int:
    """Verify, rebuild, verify.  Returns 0 when the tables are right afterwards."""
    path = Path(arguments[0])
    try:
        lock_directory(path)
        tables = Tables(open_environment(path, MAP_SIZE, DATABASES_MAX))
    except DataDirError as error:
        print(error, file=sys.stderr)
        return 1
    try:
        before = verify(tables)
        tables = rebuild(tables, path)
    except (StateDamageError, DataDirError) as error:
        print(f"{error}; restore this member from a snapshot", file=sys.stderr)
        return 1
    after = verify(tables)
    tables.env.close()
    print(f"{len(before)} complaints before, {len(after)} after", *before, *after, sep="\n")
    return 1 if after else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
