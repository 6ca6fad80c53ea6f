"""Single changes: what a put or a delete writes at one (main, sub) revision.

Knows no requests' validity: whoever calls has checked everything before the first change.
"""

from __future__ import annotations

from collections.abc import Generator

from etcdtw.mvcc.backend import Backend
from etcdtw.mvcc.long_entry import STEP_OCTETS_MAX, ends_range
from etcdtw.mvcc.ranges import open_end
from etcdtw.mvcc.views import Touched
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import encode_record, encode_varint
from etcdtw.wire.record import Record
from etcdtw.wire.requests import Put

Event = tuple[bytes, bool, bytes]
"""(key, is_delete, record); the record of a delete is {key, mod_revision}."""


class Writer:
    """Writes the changes of one entry after another.  One per store.

    ``revision`` is the last finished main revision; changes go to ``revision + 1`` with
    ``changes`` as their sub revision, until `finish`.
    """

    __slots__ = (
        "_backend",
        "_step_keys_max",
        "changes",
        "deletes_total",
        "events",
        "has_watchers",
        "put_octets_total",
        "puts_total",
        "revision",
        "touched",
    )

    def __init__(self, backend: Backend, bounds: WorkBounds) -> None:
        self._backend = backend
        self._step_keys_max = bounds.step_keys_max
        self.revision = 1  # etcd's number for an empty store
        self.changes = 0
        self.has_watchers = False
        self.events: list[Event] = []
        self.puts_total = 0
        self.put_octets_total = 0
        self.deletes_total = 0
        self.touched: Touched | None = None
        """Notes what is written, for views; or None."""

    def restart(self, revision: int, has_watchers: bool) -> None:
        """Stand behind ``revision``, between two entries."""
        self.revision = revision
        self.changes = 0
        self.has_watchers = has_watchers
        self.events = []
        if self.touched is not None:
            self.touched.forget()
            self.touched = None

    def finish(self) -> int:
        """End the entry: its changes become one revision.  Returns the current revision."""
        if self.changes:
            self.revision += 1
            self.changes = 0
            if self.touched is not None and not self.touched.views_count:
                self.touched = None
        return self.revision

    @property
    def view_revision(self) -> int:
        """The main revision that a read sees now, in the middle of an entry."""
        return self.revision + 1 if self.changes else self.revision

    def put(self, request: Put, old: bytes | None) -> None:
        """Write a put over ``old``, the key's live record before it."""
        if old is not None:
            self.put_over(request, Record(old))
        else:
            self._write(request.key, self.revision + 1, 1, request.value, request.lease, 0)

    def put_over(self, request: Put, previous: Record) -> None:
        """Write a put over a live key, given parsed."""
        old_lease = previous.lease
        self._write(
            request.key,
            previous.create_revision,
            previous.version + 1,
            previous.value if request.ignore_value else request.value,
            old_lease if request.ignore_lease else request.lease,
            old_lease,
        )

    def _write(
        self,
        key: bytes,
        create_revision: int,
        version: int,
        value: bytes,
        lease: int,
        old_lease: int,
    ) -> None:
        main = self.revision + 1
        record = encode_record(key, create_revision, main, version, value, lease)
        self._backend.put(main, self.changes, key, record, version == 1)
        self.puts_total += 1
        self.put_octets_total += len(key) + len(value)
        if lease != old_lease:
            if old_lease:
                self._backend.detach(old_lease, key)
            if lease:
                self._backend.attach(lease, key)
        self.changes += 1
        if self.touched is not None:
            self.touched.add(key)
        if self.has_watchers:
            self.events.append((key, False, record))

    def delete(self, key: bytes, lease: int) -> None:
        """Write a tombstone over a live key that has ``lease`` attached (0: none)."""
        main = self.revision + 1
        self._backend.delete(main, self.changes, key)
        self.deletes_total += 1
        if lease:
            self._backend.detach(lease, key)
        self.changes += 1
        if self.touched is not None:
            self.touched.add(key)
        if self.has_watchers:
            self.events.append((key, True, encode_record(key, 0, main, 0, b"", 0)))

    def delete_range(
        self, request: pb.DeleteRangeRequest, frames: list[bytes] | None = None
    ) -> tuple[int, bytes]:
        """Delete live keys in key order; ``frames`` are those of a range where they are known.

        Returns how many, and the body of the DeleteRangeResponse without its header.
        """
        if frames is not None:
            previous: list[bytes] = []
            for at in range(0, len(frames), self._step_keys_max):
                self._delete_frames(frames[at : at + self._step_keys_max], request, previous)
            return len(frames), b"".join(_deleted(len(frames), previous))
        if request.range_end:
            steps = self.delete_range_steps(request)
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    count, parts = end.value
                    return count, b"".join(parts)
        record = self._backend.get(request.key)
        if record is None:
            return 0, b""
        self.delete(request.key, Record(record).lease)
        if request.prev_kv:
            return 1, b"\x10\x01\x1a%b%b" % (encode_varint(len(record)), record)
        return 1, b"\x10\x01"

    def delete_range_steps(
        self, request: pb.DeleteRangeRequest
    ) -> Generator[None, None, tuple[int, list[bytes]]]:
        """`delete_range` in steps, which bound the keys and octets held: prev_kv's add up.

        Returns the body in parts, each of about a step.
        """
        start = request.key
        end = open_end(request.range_end)
        keys_max = self._step_keys_max
        count = 0
        previous: list[bytes] = []
        while end is None or start < end:
            frames = self._backend.frames(start, end, keys_max, STEP_OCTETS_MAX)
            if not frames:
                break
            last = self._delete_frames(frames, request, previous)
            count += len(frames)
            if ends_range(frames, keys_max):
                break
            start = last + b"\0"
            yield
        return count, _deleted(count, previous)

    def _delete_frames(
        self, frames: list[bytes], request: pb.DeleteRangeRequest, previous: list[bytes]
    ) -> bytes:
        """Delete the keys of frames, and note those if they are asked for; return the last."""
        kvs = pb.RangeResponse.FromString(b"".join(frames)).kvs
        for kv in kvs:
            self.delete(kv.key, kv.lease)
        if request.prev_kv:
            # A frame is field 2 of a RangeResponse; here the records are field 3.
            previous.append(b"".join([b"\x1a%b" % frame[1:] for frame in frames]))
        return bytes(kvs[-1].key)


def _deleted(count: int, previous: list[bytes]) -> list[bytes]:
    """Return what a delete of a range does, in parts."""
    return [b"\x10" + encode_varint(count), *previous] if count else []
