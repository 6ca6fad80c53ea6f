"""Whether versions of a key hide behind the one that is about to be served.

The damaged head of a page hides those at its end, and a damaged branch page whole pages of them:
an older version would be served, and each row that is read is as it was written.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from etcdtw.storage.rows.codec import (
    TABLE_CURRENT,
    parse_reference,
    parse_revision_key,
)
from etcdtw.storage.rows.seal import SEAL_SIZE, SEALS
from etcdtw.wire.record import Record, record_of

TREE_VERSIONS_MIN: Final = 64  # from about as many on a key's versions have pages of their own


class Rows(Protocol):
    """What the reader knows beside; each raises `StateDamageError`."""

    def record(self, main: int, sub: int) -> bytes:
        """Return the record put at a revision."""

    def version(self, name: bytes, stored: bytes) -> tuple[int, int, bool]:
        """Return what a row of `history` says."""

    def stored(self, table: bytes, name: bytes) -> bytes | None:
        """Return a row with its seal, unchecked."""

    def is_page_whole(self, name: bytes, version: bytes) -> bool:
        """Whether the page that holds a stored version shows all that lie there."""


def hides_versions(rows: Rows, versions: Any, name: bytes, version: tuple[int, int, bool]) -> bool:
    """Whether one is missing behind ``version``, which the cursor ``versions`` is at.

    The cursor goes on.
    """
    main, sub, is_tombstone = version
    place = versions.value()
    may_span_pages = versions.count() >= TREE_VERSIONS_MIN
    if not versions.next_dup():
        stored = rows.stored(TABLE_CURRENT, name)
        if stored is not None and SEALS[TABLE_CURRENT].is_whole(name, stored):
            return is_tombstone or not _is_of(stored[:-SEAL_SIZE], main)
        # Where what is seen ends with a tombstone the present cannot tell what may hide, nor
        # where its own row is damaged; its reader mends it.
        is_told = stored is None and not is_tombstone
        return is_told or not rows.is_page_whole(name, place)
    if not may_span_pages:
        return False
    behind = rows.version(name, versions.value())
    if behind[2]:
        return is_tombstone or not rows.is_page_whole(name, place)
    later = Record(rows.record(behind[0], behind[1]))
    if is_tombstone:
        return later.version != 1 or not rows.is_page_whole(name, place)
    earlier = Record(rows.record(main, sub))
    return (later.create_revision, later.version) != (
        earlier.create_revision,
        earlier.version + 1,
    )


def _is_of(value: bytes, main: int) -> bool:
    """Whether a row of `current` is of a main revision."""
    if value[0] == 0:
        return parse_revision_key(parse_reference(value))[0] == main
    return Record(record_of(value)).mod_revision == main
