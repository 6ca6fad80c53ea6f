"""The seam between the MVCC cores and the store that keeps their records.

Words used here:

record      an encoded ``mvccpb.KeyValue``, canonical: fields ascending, zeros omitted
frame       a record as field 2 of a ``RangeResponse``: ``0x12 varint(len) record``, so that
            the ``kvs`` of a response are joined frames
revision    (main, sub); ``main`` is what clients see
end         an exclusive bound, or None for "to the end of the key space"

All calls are made on the reactor's thread; reads see every earlier write at once.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

from etcdtw.mvcc.attached_walk import AttachedWalk

BUCKET_META: Final = b"meta"
BUCKET_LEASE: Final = b"lease"
BUCKET_ALARM: Final = b"alarm"
BUCKET_AUTH: Final = b"auth"
BUCKET_AUTH_USERS: Final = b"authUsers"
BUCKET_AUTH_ROLES: Final = b"authRoles"
BUCKET_MEMBERS: Final = b"members"
BUCKET_MEMBERS_REMOVED: Final = b"members_removed"
BUCKET_CLUSTER: Final = b"cluster"
BUCKETS: Final = (
    BUCKET_ALARM,
    BUCKET_AUTH,
    BUCKET_AUTH_ROLES,
    BUCKET_AUTH_USERS,
    BUCKET_CLUSTER,
    BUCKET_LEASE,
    BUCKET_MEMBERS,
    BUCKET_MEMBERS_REMOVED,
    BUCKET_META,
)
"""etcd's small buckets; the large one, ``key``, is reached by the calls below only."""


Row = tuple[bytes, bytes]
"""(key, frame)."""


class Change(NamedTuple):
    """One stored revision, as the ``key`` bucket has it."""

    main: int
    sub: int
    is_tombstone: bool
    record: bytes
    """The encoded KeyValue; of a tombstone it holds the key alone."""


class Backend(Protocol):
    """What MVCC needs of a store."""

    def let_go(self, items: list[Any]) -> None:
        """Free what nobody needs any more, some of it at a time: it may be a million objects."""
        ...

    # The current view.

    def get(self, key: bytes) -> bytes | None:
        """Return the record of a live key."""
        ...

    def frame(self, key: bytes) -> bytes | None:
        """Return the record of a live key as field 2 of a RangeResponse: as it is stored."""
        ...

    def frames(
        self, start: bytes, end: bytes | None, limit: int = 0, octets_max: int = 0
    ) -> list[bytes]:
        """Return the frames of live keys in ``[start, end)`` in key order; limit 0: all.

        With ``octets_max`` it may stop once the frames hold as many octets or more.
        The items may be `memoryview`s of a mapping: join or copy them before control
        returns to the reactor.
        """
        ...

    def pieces(
        self, start: bytes, end: bytes | None, limit: int = 0, octets_max: int = 0
    ) -> tuple[list[bytes], int]:
        """Return the same octets as `frames` in pieces, and how many frames they are.

        A piece is any number of whole frames, joined: the way to read what is only passed on.
        """
        ...

    def keys(self, start: bytes, end: bytes | None) -> list[bytes]:
        """Return the live keys in ``[start, end)`` in order."""
        ...

    def count(self, start: bytes, end: bytes | None) -> int:
        """Return how many keys are live in ``[start, end)``: exact, and fast for any size."""
        ...

    def count_least(self, start: bytes, end: bytes | None) -> int:
        """Return a number of keys that `count` is not below, without looking at any: 0 will do."""
        ...

    def large_octets(self) -> int:
        """Return what all large durable records of any revision hold at the most, unread.

        Those of less than half a page need not count; nor those that are in memory.
        """
        ...

    # The view at an older main revision.

    def get_at(self, key: bytes, revision: int) -> bytes | None: ...

    def frames_at(
        self, start: bytes, end: bytes | None, revision: int, limit: int = 0, octets_max: int = 0
    ) -> list[bytes]: ...

    def count_at(self, start: bytes, end: bytes | None, revision: int) -> int: ...

    # Either view in bounded steps.

    def rows(
        self, start: bytes, end: bytes | None, revision: int, rows_max: int, octets_max: int
    ) -> tuple[list[Row], bytes | None]:
        """Return the first live keys in ``[start, end)`` with their frames, and where to go on.

        ``revision`` 0: the current view.  Looks at about ``rows_max`` rows, dead ones too, so it
        may return none though more follow; ends behind the row with which the frames hold
        ``octets_max`` (0: no bound).  The second is None when nothing is left.
        """
        ...

    def count_some(
        self, start: bytes, end: bytes | None, revision: int, rows_max: int
    ) -> tuple[int, bytes | None]:
        """Return how many keys of `rows` were live at an older revision, and where to go on."""
        ...

    # Revision order.

    def changes_from(
        self, main: int, sub: int, last: int, limit: int, octets_max: int = 0
    ) -> list[Change]:
        """Return up to ``limit`` changes from (main, sub) to main revision ``last``, in order.

        Ends with the change with which their records hold ``octets_max`` (0: no bound).
        """
        ...

    # Writes; by apply only.

    def put(self, main: int, sub: int, key: bytes, record: bytes, is_new: bool) -> None:
        """Store a put at revision (main, sub).  ``is_new``: the key was not live before."""
        ...

    def delete(self, main: int, sub: int, key: bytes) -> None:
        """Store a tombstone for a live key at revision (main, sub)."""
        ...

    def attach(self, lease_id: int, key: bytes) -> None: ...

    def detach(self, lease_id: int, key: bytes) -> None: ...

    def attached(self, lease_id: int) -> list[bytes]:
        """Return the keys attached to a lease, in key order."""
        ...

    def has_attached(self, lease_id: int, count: int) -> bool:
        """Whether ``count`` keys or more are attached to a lease, or were until lately."""
        ...

    def walk_attached(self, lease_id: int) -> AttachedWalk:
        """Begin to read the keys attached to a lease in steps, in no order.

        Reads nothing yet.
        """
        ...

    def attached_durable(
        self, lease_id: int, position: bytes, limit: int
    ) -> tuple[list[bytes], bytes]:
        """Return up to ``limit`` of a lease's keys, about in key order, and where to go on.

        ``position`` is empty at first, and at the end.  Everything applied must be durable,
        except what a long entry itself detaches.
        """
        ...

    def bucket_get(self, bucket: bytes, key: bytes) -> bytes | None: ...

    def bucket_put(self, bucket: bytes, key: bytes, value: bytes) -> None: ...

    def bucket_delete(self, bucket: bytes, key: bytes) -> None: ...

    def bucket_items(self, bucket: bytes) -> list[tuple[bytes, bytes]]:
        """Return the bucket's content in key order."""
        ...

    def schedule_compaction(self, revision: int) -> None:
        """Delete, in the background and in bounded steps, what compaction at ``revision`` drops.

        ``meta/scheduledCompactRev`` was put before this call, in the same generation.
        Starts when that write is durable; resumed after a crash.  When nothing is left
        ``meta/finishedCompactRev`` is written.
        """
        ...

    def set_applied(self, index: int, term: int) -> None:
        """Cover all writes up to here by log position (index, term), atomically with them."""
        ...
