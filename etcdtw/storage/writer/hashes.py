"""etcd's hashes of a store: HashKV (comparable between members) and Hash (of everything).

Each runs as a generator over one read transaction, in bounded steps, and raises
`StateDamageError` when a row is not what was written.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from etcdtw.storage.rows.codec import (
    BUCKETS,
    META,
    META_INDEX,
    META_STORAGE_VERSION,
    META_TERM,
    TABLE_HISTORY,
    TABLE_KEY,
    key_of,
    parse_revision_key,
    stored_key,
)
from etcdtw.storage.rows.compaction import newest_version
from etcdtw.storage.rows.seal import SEALS
from etcdtw.storage.rows.tables import Tables

HASH_ROWS_MAX: Final = 2000  # looked at in one step
HASH_IGNORED: Final = ((META, META_INDEX), (META, META_TERM), (META, META_STORAGE_VERSION))


def hash_kv(
    tables: Tables,
    number: int,
    revision: int,
    compact_revision: int,
    rows_max: int = HASH_ROWS_MAX,
) -> Generator[tuple[Any, ...] | None]:
    """Yield None between steps, then ``("hash", number, crc)``.

    CRC-32C over the bucket's name, then every row up to ``revision`` except those that a
    compaction at ``compact_revision`` drops or has dropped.  Source: etcd's HashKV.
    """
    import google_crc32c

    extend = google_crc32c.extend
    crc = google_crc32c.value(TABLE_KEY)
    with tables.env.begin() as txn:
        keeps_any = compact_revision > 0 and _has_live(tables, txn, revision)
        versions = txn.cursor(tables.handles[TABLE_HISTORY])
        looked = 0
        opened = SEALS[TABLE_KEY].opened
        for stored, sealed in txn.cursor(tables.handles[TABLE_KEY]):
            record = opened(stored, sealed)
            main, sub, is_tombstone = parse_revision_key(stored)
            if main > revision:
                break
            looked += 1
            if looked % rows_max == 0:
                yield None
            if main <= compact_revision:
                if is_tombstone and (keeps_any or main == compact_revision):
                    continue
                if keeps_any:
                    newest = newest_version(versions, stored_key(key_of(record)), revision)
                    if newest is None or newest[:2] != (main, sub):
                        continue
            crc = extend(crc, stored + record)
    yield ("hash", number, crc)


def _has_live(tables: Tables, txn: Any, revision: int) -> bool:
    """Whether any key is live as of main ``revision``."""
    versions = txn.cursor(tables.handles[TABLE_HISTORY])
    for name in txn.cursor(tables.handles[TABLE_HISTORY]).iternext_nodup(True, False):
        newest = newest_version(versions, name, revision)
        if newest is not None and not newest[2]:
            return True
    return False


def hash_all(
    tables: Tables, number: int, rows_max: int = HASH_ROWS_MAX
) -> Generator[tuple[Any, ...] | None]:
    """Yield None between steps, then ``("hash", number, crc)`` over all of etcd's buckets."""
    import google_crc32c

    extend = google_crc32c.extend
    crc = 0
    with tables.env.begin() as txn:
        for bucket in sorted((*BUCKETS, TABLE_KEY)):
            crc = extend(crc, bucket)
            opened = SEALS[bucket].opened
            for looked, (name, value) in enumerate(txn.cursor(tables.handles[bucket]), 1):
                if looked % rows_max == 0:
                    yield None
                plain = opened(name, value)
                if (bucket, name) not in HASH_IGNORED:
                    crc = extend(crc, name + plain)
    yield ("hash", number, crc)
