"""Whether the log's rows are all there: a damaged page may hide one that has a checksum.

The last batch has no successor that would miss it, and a record that is absent reads as "never
written": so the names must be known ones, in order, and as many as LMDB counts.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

from etcdtw.storage.log.codec import (
    BATCH_PREFIX,
    KEY_COMPACTED,
    KEY_FORMAT,
    KEY_HARD_STATE,
    KEY_IDENTITY,
    KEY_JOURNAL,
    KEY_SNAPSHOT,
    CorruptionError,
    batch_key,
)

KNOWN: Final = frozenset(
    (KEY_FORMAT, KEY_IDENTITY, KEY_HARD_STATE, KEY_SNAPSHOT, KEY_COMPACTED, KEY_JOURNAL)
)
BATCH_KEY_SIZE: Final = len(batch_key(0))


def check_names(txn: Any) -> None:
    """Raise `CorruptionError` when a row is hidden, misplaced or nobody's."""
    names: list[bytes] = list(txn.cursor().iternext(True, False))
    entries = txn.stat()["entries"]
    if len(names) != entries:
        raise CorruptionError(f"{len(names)} rows are found where {entries} are counted")
    for one, other in pairwise(names):
        if one >= other:
            raise CorruptionError(f"the row {other[:32]!r} is out of order")
    for name in names:
        is_batch = name[:1] == BATCH_PREFIX and len(name) == BATCH_KEY_SIZE
        if not is_batch and name not in KNOWN:
            raise CorruptionError(f"the row {name[:32]!r} is not one of a log")
        if txn.get(name) is None:
            raise CorruptionError(f"a search does not find the row {name[:32]!r}")
