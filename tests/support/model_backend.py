"""A complete `mvcc.backend.Backend` in plain dicts: the reference for tests.

Every answer is computed the naive way, so that it can be checked by eye.  Compaction happens at
once.  Knows no disk; nothing survives the object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import google_crc32c

from etcdtw.mvcc.attached_walk import AttachedWalk, AttachedWalks
from etcdtw.mvcc.backend import BUCKET_META, BUCKETS, Change
from etcdtw.mvcc.compaction_hashes import CompactionHashes


def encode_varint(number: int) -> bytes:
    """Return ``number`` as a protobuf varint."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode_frame(record: bytes) -> bytes:
    """Return ``record`` as field 2 of a RangeResponse."""
    return b"\x12" + encode_varint(len(record)) + record


def encode_tombstone(key: bytes) -> bytes:
    """Return the KeyValue that a tombstone stores: the key alone."""
    return b"\x0a" + encode_varint(len(key)) + key


def encode_revision(main: int, sub: int, is_tombstone: bool = False) -> bytes:
    """Return etcd's key in the bucket ``key``: 17 octets, 18 for a tombstone."""
    text = main.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big")
    return text + b"t" if is_tombstone else text


class ModelBackend:
    """The whole store as three dicts.  ``revisions`` is in revision order by construction."""

    def __init__(self) -> None:
        self.revisions: dict[tuple[int, int], tuple[bool, bytes, bytes]] = {}
        """(main, sub) -> (is_tombstone, key, record)."""
        self.live: dict[bytes, bytes] = {}
        self.leases: dict[int, set[bytes]] = {}
        self.buckets: dict[bytes, dict[bytes, bytes]] = {name: {} for name in BUCKETS}
        self.applied_index = 0
        self.applied_term = 0
        self.compacted: list[int] = []
        """The revisions of every `schedule_compaction`, in order."""
        self.compaction_hashes = CompactionHashes()
        self.octets_read: list[int] = []
        """How large the records were of each `changes_from` and `get_at`."""
        self._walks = AttachedWalks()

    def let_go(self, items: list[Any]) -> None:
        items.clear()

    # The current view.

    def get(self, key: bytes) -> bytes | None:
        return self.live.get(key)

    def frame(self, key: bytes) -> bytes | None:
        record = self.live.get(key)
        return None if record is None else encode_frame(record)

    def keys(self, start: bytes, end: bytes | None) -> list[bytes]:
        return sorted(key for key in self.live if start <= key and (end is None or key < end))

    def frames(
        self, start: bytes, end: bytes | None, limit: int = 0, octets_max: int = 0
    ) -> list[bytes]:
        return _bounded([self.live[key] for key in self.keys(start, end)], limit, octets_max)

    def pieces(
        self, start: bytes, end: bytes | None, limit: int = 0, octets_max: int = 0
    ) -> tuple[list[bytes], int]:
        frames = self.frames(start, end, limit, octets_max)
        return [b"".join(frames[:2]), *frames[2:]], len(frames)

    def count(self, start: bytes, end: bytes | None) -> int:
        return len(self.keys(start, end))

    def count_least(self, start: bytes, end: bytes | None) -> int:
        return self.count(start, end) // 2

    def large_octets(self) -> int:
        return sum(map(len, self.live.values()))

    # The view at an older main revision.

    def view_at(self, revision: int) -> dict[bytes, bytes]:
        """Return key -> record as it stood after main revision ``revision``."""
        view: dict[bytes, bytes] = {}
        for (main, _), (is_tombstone, key, record) in sorted(self.revisions.items()):
            if main > revision:
                break
            if is_tombstone:
                view.pop(key, None)
            else:
                view[key] = record
        return view

    def get_at(self, key: bytes, revision: int) -> bytes | None:
        record = self.view_at(revision).get(key)
        self.octets_read.append(len(record or b""))
        return record

    def frames_at(
        self, start: bytes, end: bytes | None, revision: int, limit: int = 0, octets_max: int = 0
    ) -> list[bytes]:
        view = self.view_at(revision)
        keys = sorted(key for key in view if start <= key and (end is None or key < end))
        return _bounded([view[key] for key in keys], limit, octets_max)

    def count_at(self, start: bytes, end: bytes | None, revision: int) -> int:
        return len(self.frames_at(start, end, revision))

    # Either view in steps.

    def rows(
        self, start: bytes, end: bytes | None, revision: int, rows_max: int, octets_max: int
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        view = self.view_at(revision) if revision else self.live
        names = {key for _, key, _ in self.revisions.values()} if revision else view.keys()
        rows: list[tuple[bytes, bytes]] = []
        size = 0
        keys = sorted(key for key in names if start <= key and (end is None or key < end))
        for looked_at, key in enumerate(keys):
            if looked_at >= rows_max or 0 < octets_max <= size:
                return rows, key
            if key in view:
                rows.append((key, encode_frame(view[key])))
                size += len(rows[-1][1])
        return rows, None

    def count_some(
        self, start: bytes, end: bytes | None, revision: int, rows_max: int
    ) -> tuple[int, bytes | None]:
        rows, behind = self.rows(start, end, revision, rows_max, 0)
        return len(rows), behind

    # Revision order.

    def changes_from(
        self, main: int, sub: int, last: int, limit: int, octets_max: int = 0
    ) -> list[Change]:
        found: list[Change] = []
        octets = 0
        for position, (is_tombstone, _, record) in sorted(self.revisions.items()):
            is_full = len(found) >= limit or 0 < octets_max <= octets
            if position >= (main, sub) and position[0] <= last and not is_full:
                found.append(Change(*position, is_tombstone, record))
                octets += len(record)
        self.octets_read.append(octets)
        return found

    # Writes.

    def put(self, main: int, sub: int, key: bytes, record: bytes, is_new: bool) -> None:
        assert is_new == (key not in self.live), "is_new is wrong"
        assert (main, sub) not in self.revisions, "revision used twice"
        self.revisions[main, sub] = (False, key, record)
        self.live[key] = record

    def delete(self, main: int, sub: int, key: bytes) -> None:
        assert key in self.live, "a tombstone for a key that is not live"
        assert (main, sub) not in self.revisions, "revision used twice"
        self.revisions[main, sub] = (True, key, encode_tombstone(key))
        del self.live[key]

    def attach(self, lease_id: int, key: bytes) -> None:
        self.leases.setdefault(lease_id, set()).add(key)
        self._walks.hear(lease_id, key, True)

    def detach(self, lease_id: int, key: bytes) -> None:
        self.leases.get(lease_id, set()).discard(key)
        self._walks.hear(lease_id, key, False)

    def attached(self, lease_id: int) -> list[bytes]:
        return sorted(self.leases.get(lease_id, ()))

    def has_attached(self, lease_id: int, count: int) -> bool:
        return len(self.leases.get(lease_id, ())) >= count

    def walk_attached(self, lease_id: int) -> AttachedWalk:
        return self._walks.begin(lease_id, {}, self.attached_durable)

    def attached_durable(
        self, lease_id: int, position: bytes, limit: int
    ) -> tuple[list[bytes], bytes]:
        keys = [key for key in self.attached(lease_id) if key >= position]
        return keys[:limit], keys[limit] if len(keys) > limit else b""

    def bucket_get(self, bucket: bytes, key: bytes) -> bytes | None:
        return self.buckets[bucket].get(key)

    def bucket_put(self, bucket: bytes, key: bytes, value: bytes) -> None:
        self.buckets[bucket][key] = value

    def bucket_delete(self, bucket: bytes, key: bytes) -> None:
        self.buckets[bucket].pop(key, None)

    def bucket_items(self, bucket: bytes) -> list[tuple[bytes, bytes]]:
        return sorted(self.buckets[bucket].items())

    def schedule_compaction(self, revision: int) -> None:
        newest: dict[bytes, tuple[int, int]] = {}
        for place, (_, key, _) in sorted(self.revisions.items()):
            if place[0] <= revision:
                newest[key] = place
        self._hash_compaction(revision)
        for place, (is_tombstone, key, _) in list(self.revisions.items()):
            if place[0] > revision or (is_tombstone and place[0] == revision):
                continue
            if is_tombstone or newest[key] != place:
                del self.revisions[place]
        self.compacted.append(revision)
        self.bucket_put(BUCKET_META, b"finishedCompactRev", encode_revision(revision, 0))

    def _hash_compaction(self, revision: int) -> None:
        """HashKV at ``revision`` as if the one before were still the last compaction."""
        mark = self.bucket_get(BUCKET_META, b"finishedCompactRev")
        previous = -1 if mark is None else int.from_bytes(mark[:8], "big")
        newest = {key: place for place, (_, key, _) in self._up_to(revision)}
        keep = {
            place
            for place in newest.values()
            if place[0] == revision or not self.revisions[place][0]
        }
        has_live = any(not self.revisions[place][0] for place in keep)
        value = self._hash(revision, previous, keep)
        self.compaction_hashes.add(revision, previous, value, has_live)

    def set_applied(self, index: int, term: int) -> None:
        self.applied_index = index
        self.applied_term = term
        self.bucket_put(BUCKET_META, b"consistent_index", index.to_bytes(8, "big"))
        self.bucket_put(BUCKET_META, b"term", term.to_bytes(8, "big"))

    # What `storage.state.state.LmdbState` has beside the seam.

    is_full = False

    @property
    def applied_durable(self) -> int:
        return self.applied_index

    def tick(self, now_ms: int) -> None:
        """Time changes nothing here."""

    def flush(self, done: Callable[[], None]) -> None:
        done()

    def on_compacted(self, revision: int, done: Callable[[], None]) -> None:
        done()

    def hash_kv(self, revision: int, compact_revision: int, done: Callable[[int], None]) -> None:
        """Etcd's HashKV by its definition, over everything in revision order."""
        newest = {key: place for place, (_, key, _) in self._up_to(revision)}
        keep = {place for place in newest.values() if not self.revisions[place][0]}
        done(self._hash(revision, compact_revision, keep))

    def _up_to(self, revision: int) -> list[tuple[tuple[int, int], tuple[bool, bytes, bytes]]]:
        return [item for item in sorted(self.revisions.items()) if item[0][0] <= revision]

    def _hash(self, revision: int, compact_revision: int, keep: set[tuple[int, int]]) -> int:
        crc = int(google_crc32c.value(b"key"))
        for place, (is_tombstone, _, record) in self._up_to(revision):
            main, sub = place
            if main <= compact_revision and keep and place not in keep:
                continue
            if main == compact_revision and is_tombstone:
                continue
            crc = google_crc32c.extend(crc, encode_revision(main, sub, is_tombstone) + record)
        return crc


def _bounded(records: list[bytes], limit: int, octets_max: int) -> list[bytes]:
    """Return the frames of the first records, within both bounds (0: there is none)."""
    frames: list[bytes] = []
    size = 0
    for record in records[:limit] if limit else records:
        frames.append(encode_frame(record))
        size += len(frames[-1])
        if 0 < octets_max <= size:
            break
    return frames
