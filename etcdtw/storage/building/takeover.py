"""A state of an earlier format, brought to this one when a member opens it.

`open_state` calls `take_over` under the directory's lock, before anything is read from the tables
and before a writer exists; the log was taken over before (docs/format/takeover.md).  The new state
is made beside the old one and takes its place by renaming (`renewal`): until then the next
start begins anew.

Knows the formats, not what opens them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from etcdtw.storage.building.renewal import Row, renew
from etcdtw.storage.rows.codec import FORMAT_BEFORE
from etcdtw.storage.rows.tables import Tables

FORMATS_BEFORE: Final[tuple[bytes, ...]] = (FORMAT_BEFORE,)
"""Values of ``etcdtw/format`` that `take_over` can bring to `rows.codec.FORMAT`."""


def take_over(tables: Tables, path: Path, map_size: int) -> None:
    """Bring the state in ``path``, open as ``tables``, to the present format; they are closed.

    Raises `DataDirError` with advice, or `lmdb.Error`; then the old state is there as it was.
    """
    renew(tables, path, map_size, _unsealed)


def _unsealed(table: bytes, rows: list[Row]) -> list[Row]:
    """Format 1 had no seals.  What is damaged there shows only where it is no longer a record."""
    return rows
