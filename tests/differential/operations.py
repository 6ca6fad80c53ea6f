"""Random operations of a seed: every request that a v3 client can make of one member's store.

The source follows the answers (revision, compacted revision, leases) so that old revisions, the
edges of compaction and existing leases are hit often.  Knows no connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Final

from etcdtw.wire import etcdserverpb as pb

RANGE: Final = "/etcdserverpb.KV/Range"
RANGE_STREAM: Final = "/etcdserverpb.KV/RangeStream"
PUT: Final = "/etcdserverpb.KV/Put"
DELETE: Final = "/etcdserverpb.KV/DeleteRange"
TXN: Final = "/etcdserverpb.KV/Txn"
COMPACT: Final = "/etcdserverpb.KV/Compact"
GRANT: Final = "/etcdserverpb.Lease/LeaseGrant"
REVOKE: Final = "/etcdserverpb.Lease/LeaseRevoke"
TIME_TO_LIVE: Final = "/etcdserverpb.Lease/LeaseTimeToLive"
LEASES: Final = "/etcdserverpb.Lease/LeaseLeases"
KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"
HASH_KV: Final = "/etcdserverpb.Maintenance/HashKV"
WATCH: Final = "/etcdserverpb.Watch/Watch"

RESPONSES: Final[dict[str, Any]] = {
    RANGE: pb.RangeResponse,
    RANGE_STREAM: pb.RangeStreamResponse,
    PUT: pb.PutResponse,
    DELETE: pb.DeleteRangeResponse,
    TXN: pb.TxnResponse,
    COMPACT: pb.CompactionResponse,
    GRANT: pb.LeaseGrantResponse,
    REVOKE: pb.LeaseRevokeResponse,
    TIME_TO_LIVE: pb.LeaseTimeToLiveResponse,
    LEASES: pb.LeaseLeasesResponse,
    KEEP_ALIVE: pb.LeaseKeepAliveResponse,
    HASH_KV: pb.HashKVResponse,
    WATCH: pb.WatchResponse,
}

LONG_PREFIX: Final = b"long/" + b"x" * 480  # past what an LMDB key can hold
KEYS: Final = (
    *(b"k%02d" % i for i in range(40)),
    *(b"dir/%d" % i for i in range(10)),
    *(b"dir/%d/sub" % i for i in range(4)),
    *(b"a", b"a\0", b"a\0\0", b"b", b"\0", b"\x00\x01", b"\xff", b"\xff\xff", b"z\xff"),
    *(LONG_PREFIX + b"%d" % i * 30 for i in range(4)),
    *(LONG_PREFIX, LONG_PREFIX[:480], LONG_PREFIX[:479] + b"\0", LONG_PREFIX * 3),
)
LEASE_IDS: Final[tuple[int, ...]] = (*range(1, 21), -1, -77, 2**62, 2**63 - 1, -(2**63))
TTLS_LONG_S: Final = (3600, 5000, 86400, 9_000_000_000)
TTLS_SHORT_S: Final = (-5, 0, 1)  # raised to the least TTL; revoked at once, before they expire
TTL_TOO_LARGE_S: Final = 9_000_000_001
OPS_MAX: Final = 128
GZIP_PERCENT: Final = 5
REQUEST_TOO_LARGE_OCTETS: Final = 1_600_000
MESSAGE_TOO_LARGE_OCTETS: Final = 2_200_000


@dataclass(slots=True)
class Operation:
    """One step: a unary call, or something on the keep-alive or a watch stream.

    ``is_read``: changes nothing and may be under way beside other reads.  ``settles``: every
    watcher must have its events before this step, because it could take them away.
    """

    path: str
    request: Any
    is_read: bool = False
    settles: bool = False
    is_compressed: bool = False
    stream: int = 0  # which Watch stream

    def describe(self) -> str:
        text = str(self.request)
        if len(text) > 6000:
            text = f"{text[:6000]}... ({len(text)} characters)"
        return f"{self.path}\n{text}"


class OperationSource:
    """Draws operations from ``random``; told of every answer by `observe`."""

    def __init__(self, random: Random, watch_streams: int = 3) -> None:
        self.random = random
        self.revision = 1
        self.compact_revision = -1
        self.compactions: set[int] = set()
        self.leases: set[int] = set()
        self.watch_streams = watch_streams
        self.watchers: list[tuple[int, int]] = []  # (stream, watch id) that can be cancelled
        self._forced: list[Operation] = []
        self._table: list[tuple[int, Any]] = [
            (300, self._put),
            (220, self._range),
            (30, self._range_stream),
            (120, self._txn),
            (70, self._delete),
            (60, self._lease),
            (40, self._invalid),
            (6, self._watch_create),
            (3, self._watch_cancel),
            (2, self._progress),
            (4, self._hash_kv),
            (3, self._compact),
        ]
        self._weights = [weight for weight, _ in self._table]
        self._makers = [maker for _, maker in self._table]

    def next(self) -> Operation:
        """Return the next operation."""
        if self._forced:
            return self._forced.pop(0)
        maker = self.random.choices(self._makers, self._weights)[0]
        operation: Operation = maker()
        operation.is_compressed = self._chance(GZIP_PERCENT)
        return operation

    @property
    def is_bound(self) -> bool:
        """Whether the next operation belongs to the last one and must follow it at once."""
        return bool(self._forced)

    def observe(self, operation: Operation, code: int, response: Any) -> None:
        """Learn from the answer to ``operation``; ``response`` is None after an error."""
        if code != 0 or response is None:
            return
        self.revision = max(self.revision, response.header.revision)
        if operation.path == COMPACT:
            self.compact_revision = operation.request.revision
            self.compactions.add(self.compact_revision)
        elif operation.path == GRANT:
            self.leases.add(response.ID)
        elif operation.path == REVOKE:
            self.leases.discard(operation.request.ID)

    # -- pieces --------------------------------------------------------------------------------

    def _key(self) -> bytes:
        return self.random.choice(KEYS)

    def _chance(self, percent: float) -> bool:
        return self.random.random() * 100 < percent

    def _range_end(self, key: bytes) -> bytes:
        choice = self.random.randrange(6)
        if choice == 0:
            return b"\0"
        if choice == 1:
            return self._key()
        if choice == 2:
            return key + b"\0"
        prefix = key[: self.random.randint(1, len(key))]
        return prefix_end(prefix)

    def _interval(self, percent_single: float) -> tuple[bytes, bytes]:
        if self._chance(percent_single):
            return self._key(), b""
        key = b"\0" if self._chance(20) else self._key()
        return key, self._range_end(key)

    def _revision(self, percent_current: float = 70) -> int:
        if self._chance(percent_current):
            return 0
        choice = self.random.randrange(10)
        oldest = max(self.compact_revision, 1)
        if choice < 6:
            return self.random.randint(min(oldest, self.revision), self.revision)
        edges: tuple[int, ...] = (
            self.compact_revision,
            self.compact_revision - 1,
            self.revision + self.random.choice((0, 1, 1000)),
            self.random.choice((-1, -2, -1000, 2**62)),
        )
        return int(edges[choice - 6])

    def _some_revision(self) -> int:
        return self.random.randint(1, self.revision + 2)

    def _value(self) -> bytes:
        choice = self.random.randrange(40)
        if choice == 0:
            return self.random.randbytes(self.random.randint(1000, 20_000))
        if choice < 4:
            return b""
        if choice < 20:
            return self.random.choice((b"x", b"y", b"zz"))
        return self.random.randbytes(self.random.randint(1, 60))

    def _lease_id(self) -> int:
        if self.leases and self._chance(80):
            return int(self.random.choice(sorted(self.leases)))
        return self.random.choice(LEASE_IDS)

    def _range_request(self) -> Any:
        key, range_end = self._interval(25)
        request = pb.RangeRequest(key=key, range_end=range_end, revision=self._revision())
        random = self.random
        if self._chance(40):
            request.limit = random.choice((1, 2, 3, 5, 10, 1000, -1))
        if self._chance(40):
            request.sort_order = random.randrange(3)
            request.sort_target = random.randrange(5)
        request.serializable = self._chance(30)
        request.keys_only = self._chance(15)
        request.count_only = self._chance(10)
        for name in (
            "min_mod_revision",
            "max_mod_revision",
            "min_create_revision",
            "max_create_revision",
        ):
            if self._chance(8):
                setattr(request, name, self._some_revision())  # protobuf
        return request

    def _put_request(self) -> Any:
        request = pb.PutRequest(key=self._key(), value=self._value(), prev_kv=self._chance(30))
        if self._chance(20):
            request.lease = self._lease_id()
        if self._chance(5):
            request.ignore_value = True
            if self._chance(80):
                request.value = b""
        if self._chance(5):
            request.ignore_lease = True
            if self._chance(80):
                request.lease = 0
        return request

    def _delete_request(self) -> Any:
        key, range_end = self._interval(80)
        if key == b"\0" and range_end == b"\0" and self._chance(90):
            range_end = b"k"
        return pb.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=self._chance(40))

    def _compare(self) -> Any:
        compare = pb.Compare(
            key=self._key(), result=self.random.randrange(4), target=self.random.randrange(5)
        )
        if self._chance(25):
            compare.range_end = self._range_end(compare.key)
        choice = self.random.randrange(6) if self._chance(5) else compare.target
        if choice == 0:
            compare.version = self.random.choice((0, 1, 2, 3, 10))
        elif choice == 1:
            compare.create_revision = self.random.choice((0, self._some_revision()))
        elif choice == 2:
            compare.mod_revision = self.random.choice((0, self._some_revision()))
        elif choice == 3:
            compare.value = self._value()
        elif choice == 4:
            compare.lease = self.random.choice((0, self._lease_id()))
        return compare

    def _request_op(self, depth: int) -> Any:
        choice = self.random.randrange(100)
        if choice < 35:
            return pb.RequestOp(request_range=self._range_request())
        if choice < 75:
            return pb.RequestOp(request_put=self._put_request())
        if choice < 90 or depth == 0:
            return pb.RequestOp(request_delete_range=self._delete_request())
        if choice == 99 and self._chance(30):
            return pb.RequestOp()
        return pb.RequestOp(request_txn=self._txn_request(depth - 1))

    def _txn_request(self, depth: int) -> Any:
        random = self.random
        return pb.TxnRequest(
            compare=[self._compare() for _ in range(random.choice((0, 1, 1, 1, 2, 3)))],
            success=[self._request_op(depth) for _ in range(random.choice((0, 1, 1, 2, 2, 3, 5)))],
            failure=[self._request_op(depth) for _ in range(random.choice((0, 1, 1, 2, 4)))],
        )

    # -- operations ----------------------------------------------------------------------------

    def _put(self) -> Operation:
        return Operation(PUT, self._put_request())

    def _range(self) -> Operation:
        return Operation(RANGE, self._range_request(), is_read=True)

    def _range_stream(self) -> Operation:
        request = self._range_request()
        if request.sort_order == pb.RangeRequest.NONE:
            # With another target etcd's pages leave keys out or count them twice (departures.md).
            request.sort_target = pb.RangeRequest.KEY
        return Operation(RANGE_STREAM, request, is_read=True)

    def _delete(self) -> Operation:
        return Operation(DELETE, self._delete_request())

    def _txn(self) -> Operation:
        request = self._txn_request(2)
        if has_open_delete(request):
            # Real etcd does not see that such a delete overlaps a put, and panics when the put
            # then misses the key whose value or lease it was to keep.
            clear_ignore_flags(request)
        return Operation(TXN, request)

    def _hash_kv(self) -> Operation:
        if self.compactions and self._chance(30):
            revision = self.random.choice(sorted(self.compactions)[-12:])
        else:
            revision = self._revision(50)
        return Operation(HASH_KV, pb.HashKVRequest(revision=revision), is_read=True)

    def _compact(self) -> Operation:
        physical = self._chance(60)
        revision = self._revision(0)
        if physical:
            self._forced.append(Operation(HASH_KV, pb.HashKVRequest(), is_read=True))
        request = pb.CompactionRequest(revision=revision, physical=physical)
        return Operation(COMPACT, request, settles=True)

    def _lease(self) -> Operation:
        choice = self.random.randrange(10)
        if choice < 2:
            return self._grant()
        if choice < 3:
            return Operation(REVOKE, pb.LeaseRevokeRequest(ID=self._lease_id()))
        if choice < 6:
            request = pb.LeaseTimeToLiveRequest(ID=self._lease_id(), keys=self._chance(60))
            return Operation(TIME_TO_LIVE, request, is_read=True)
        if choice < 7:
            return Operation(LEASES, pb.LeaseLeasesRequest(), is_read=True)
        return Operation(KEEP_ALIVE, pb.LeaseKeepAliveRequest(ID=self._lease_id()))

    def _grant(self) -> Operation:
        lease_id = self.random.choice(LEASE_IDS)
        if self._chance(15):
            ttl_s = self.random.choice(TTLS_SHORT_S)
            self._forced.append(Operation(REVOKE, pb.LeaseRevokeRequest(ID=lease_id)))
        elif self._chance(5):
            ttl_s = TTL_TOO_LARGE_S
        else:
            ttl_s = self.random.choice(TTLS_LONG_S)
        return Operation(GRANT, pb.LeaseGrantRequest(ID=lease_id, TTL=ttl_s))

    def _invalid(self) -> Operation:
        """Return a request that breaks a rule for certain; it changes nothing."""
        choice = self.random.randrange(10)
        key = self._key()
        if choice == 0:
            return Operation(PUT, pb.PutRequest(value=b"x"), is_read=True)
        if choice == 1:
            return Operation(RANGE, pb.RangeRequest(range_end=key), is_read=True)
        if choice == 2:
            return Operation(DELETE, pb.DeleteRangeRequest(range_end=key), is_read=True)
        if choice == 3:
            request = pb.PutRequest(key=key, value=b"x", ignore_value=True)
            return Operation(PUT, request, is_read=True)
        if choice == 4:
            return Operation(PUT, pb.PutRequest(key=key, lease=5, ignore_lease=True), is_read=True)
        if choice == 5:
            return Operation(PUT, pb.PutRequest(key=key, lease=123456789))
        if choice == 6:
            revision = self.revision + 1 + self.random.randrange(1000)
            return Operation(RANGE, pb.RangeRequest(key=key, revision=revision), is_read=True)
        if choice == 7 and self._chance(5):
            octets = self.random.choice((REQUEST_TOO_LARGE_OCTETS, MESSAGE_TOO_LARGE_OCTETS))
            return Operation(PUT, pb.PutRequest(key=key, value=b"v" * octets))
        return Operation(TXN, self._invalid_txn(key))

    def _invalid_txn(self, key: bytes) -> Any:
        choice = self.random.randrange(8)
        put = pb.RequestOp(request_put=pb.PutRequest(key=key, value=b"x"))
        if choice == 0:
            return pb.TxnRequest(success=[put, put])
        if choice == 1:
            delete = pb.DeleteRangeRequest(key=b"\0", range_end=b"\0")
            return pb.TxnRequest(failure=[put, pb.RequestOp(request_delete_range=delete)])
        if choice == 2:
            return pb.TxnRequest(compare=[pb.Compare(version=1)], success=[put])
        if choice == 3:
            return pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(value=b"x"))])
        if choice > 5:
            reasons = [self._bad_op(2) for _ in range(self.random.randint(2, 4))]
            return pb.TxnRequest(success=reasons, failure=reasons)
        count = self.random.choice((OPS_MAX - 1, OPS_MAX, OPS_MAX + 1))
        reads = [pb.RequestOp(request_range=pb.RangeRequest(key=key))] * count
        if choice == 4:
            return pb.TxnRequest(success=reads)
        nested = pb.RequestOp(
            request_txn=pb.TxnRequest(success=reads[: self.random.randint(20, 30)])
        )
        return pb.TxnRequest(success=[*reads[:100], nested])

    def _bad_op(self, depth: int) -> Any:
        """Return an operation that is refused at the apply; whose reason is told is compared."""
        choice = self.random.randrange(7)
        absent = b"absent/%d" % self.random.randrange(1_000_000)
        if choice < 2:
            revision = self.revision + 1000 if choice else -1000
            return pb.RequestOp(request_range=pb.RangeRequest(key=self._key(), revision=revision))
        if choice == 2:
            return pb.RequestOp(request_put=pb.PutRequest(key=absent, lease=123456789))
        if choice == 3:
            put = pb.PutRequest(key=absent, ignore_value=True, lease=self._lease_id())
            return pb.RequestOp(request_put=put)
        if choice == 4:
            return pb.RequestOp(request_put=pb.PutRequest(key=absent, ignore_lease=True))
        if choice == 5 and depth:
            ops = [self._bad_op(depth - 1) for _ in range(2)]
            return pb.RequestOp(request_txn=pb.TxnRequest(success=ops, failure=ops))
        return pb.RequestOp(request_range=pb.RangeRequest(key=self._key()))

    # -- watches -------------------------------------------------------------------------------

    def _watch_create(self) -> Operation:
        key, range_end = self._interval(30)
        create = pb.WatchCreateRequest(
            key=b"" if self._chance(2) else key,
            range_end=range_end,
            prev_kv=self._chance(40),
            fragment=self._chance(20),
            progress_notify=self._chance(20),
            start_revision=self._revision(40),
        )
        if self._chance(30):
            create.filters.append(self.random.randrange(2))
        if self._chance(15):
            create.watch_id = self.random.randint(1, 60)
        return Operation(
            WATCH,
            pb.WatchRequest(create_request=create),
            stream=self.random.randrange(self.watch_streams),
        )

    def _watch_cancel(self) -> Operation:
        if self.watchers and self._chance(90):
            stream, watch_id = self.random.choice(self.watchers)
        else:
            stream, watch_id = self.random.randrange(self.watch_streams), 12345
        cancel = pb.WatchCancelRequest(watch_id=watch_id)
        return Operation(WATCH, pb.WatchRequest(cancel_request=cancel), settles=True, stream=stream)

    def _progress(self) -> Operation:
        request = pb.WatchRequest(progress_request=pb.WatchProgressRequest())
        stream = self.random.randrange(self.watch_streams)
        return Operation(WATCH, request, settles=True, stream=stream)


def _ops(txn: Any) -> list[Any]:
    return [*txn.success, *txn.failure]


def has_open_delete(txn: Any) -> bool:
    """Say whether ``txn`` holds, at any depth, a delete of everything from a key on."""
    return any(
        op.request_delete_range.range_end == b"\0" or has_open_delete(op.request_txn)
        for op in _ops(txn)
    )


def clear_ignore_flags(txn: Any) -> None:
    """Make every put of ``txn``, at any depth, one that replaces value and lease."""
    for op in _ops(txn):
        if op.HasField("request_put"):
            op.request_put.ignore_value = op.request_put.ignore_lease = False
        elif op.HasField("request_txn"):
            clear_ignore_flags(op.request_txn)


def prefix_end(prefix: bytes) -> bytes:
    """Return the range_end that makes a range of everything beginning with ``prefix``."""
    for i in reversed(range(len(prefix))):
        if prefix[i] < 0xFF:
            return prefix[:i] + bytes([prefix[i] + 1])
    return b"\0"
