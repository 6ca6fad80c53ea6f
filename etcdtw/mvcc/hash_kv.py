"""HashKV: one number by which members compare their keys and history.

CRC-32C over the bucket ``key`` in revision order, leaving out what a compaction drops, so that
members agree however far their physical deletion has come.

Source: etcd v3 api, HashKVRequest; the rule is that of etcd 3.5.16, 3.6 and 3.7, which answers
the same as older ones wherever those are defined.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

import google_crc32c

from etcdtw.mvcc.backend import Change
from etcdtw.wire.mvccpb import KeyValue

_REVISION: Final = Struct(">QcQ")
_JOIN_OCTETS: Final = 1 << 16  # what is fed to the CRC at a time; a call costs, a join less

BUCKET_NAME: Final = b"key"

Keep = frozenset[tuple[int, int]]
"""Revisions (main, sub)."""


def encode_revision(main: int, sub: int, is_tombstone: bool = False) -> bytes:
    """Return a revision as the bucket ``key`` has it: 17 octets, 18 for a tombstone."""
    octets = _REVISION.pack(main, b"_", sub)
    return octets + b"t" if is_tombstone else octets


def kept_revisions(changes: Iterable[Change], revision: int) -> Keep:
    """Return each key's newest revision up to main ``revision``, unless it is a tombstone."""
    newest: dict[bytes, tuple[int, int]] = {}
    for change in changes:
        if change.main > revision:
            break
        key = KeyValue.FromString(change.record).key
        if change.is_tombstone:
            newest.pop(key, None)
        else:
            newest[key] = (change.main, change.sub)
    return frozenset(newest.values())


class KvHash:
    """The hash at ``revision`` of a store compacted to ``compact_revision`` (-1: never).

    Feed it every stored change in revision order; ``keep`` is `kept_revisions` of the same.
    """

    def __init__(self, revision: int, compact_revision: int, keep: Keep) -> None:
        self._revision = revision
        self._compact_revision = compact_revision
        self._keep = keep
        self._crc = int(google_crc32c.value(BUCKET_NAME))
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, changes: Iterable[Change]) -> None:
        """Take the next changes; those that the hash leaves out are skipped."""
        for main, sub, is_tombstone, record in changes:
            if main > self._revision or self._is_dropped(main, sub, is_tombstone):
                continue
            self._pieces += (encode_revision(main, sub, is_tombstone), record)
            self._size += len(record)
            if self._size >= _JOIN_OCTETS:
                self._flush()

    def value(self) -> int:
        """Return the hash of what was fed so far, a uint32."""
        self._flush()
        return self._crc

    def _is_dropped(self, main: int, sub: int, is_tombstone: bool) -> bool:
        if main > self._compact_revision:
            return False
        # etcd's quirk: with nothing to keep, nothing below the compaction is left out.
        if self._keep and (main, sub) not in self._keep:
            return True
        return main == self._compact_revision and is_tombstone

    def _flush(self) -> None:
        self._crc = int(google_crc32c.extend(self._crc, b"".join(self._pieces)))
        self._pieces = []
        self._size = 0


def hash_kv(changes: Iterable[Change], revision: int, compact_revision: int) -> int:
    """Return the HashKV of a whole history at once."""
    history = list(changes)
    kv_hash = KvHash(revision, compact_revision, kept_revisions(history, revision))
    kv_hash.feed(history)
    return kv_hash.value()
