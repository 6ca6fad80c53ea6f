"""A state of an earlier format, brought to this one when a member opens it.

`open_state` calls `take_over` under the directory's lock, before anything is read from the tables
and before a writer exists; the log was taken over before (docs/format/takeover.md).  The
transaction that writes the new format's number is the last one of a takeover: until then the next
start begins it anew.

Knows the tables, not what opens them.
"""

from __future__ import annotations

from typing import Final

from etcdtw.storage.state_tables import Tables

FORMATS_BEFORE: Final[tuple[bytes, ...]] = ()
"""Values of ``etcdtw/format`` that `take_over` can bring to `state_codec.FORMAT`."""


def take_over(tables: Tables, found: bytes) -> None:
    """Bring ``tables`` from the format ``found`` to `state_codec.FORMAT`.

    Must be harmless to cut short and to begin again at any point; steps of bounded size, the
    format's number in the last.  Raises `lmdb.Error`, or `DataDirError` with advice.
    """
    raise AssertionError(f"nothing is known of {found!r}")
