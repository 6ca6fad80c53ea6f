"""Clients of a cluster that note what they did, for the checker of histories.

Each has one operation under way, over a connection of its own to one member; when that breaks
it goes on with the next member, and a write that was under way has an unknown outcome.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from etcdtw.wire import etcdserverpb as pb
from tests.differential.operations import DELETE, PUT, RANGE, TXN, WATCH
from tests.support.cluster_processes import Cluster, ClusterMember
from tests.support.revision_order import (
    Change,
    CompareFailed,
    LogEntry,
    Operation,
    Read,
    RevisionOrderChecker,
    Write,
)
from tests.support.wire_client import ConnectionFailedError, WireClient, WireStream

KEYS: Final = 30  # shared by all clients: they are to meet
CALL_TIMEOUT_S: Final = 4.0
RECONNECT_S: Final = 0.05
LOG_TIMEOUT_S: Final = 60.0
NEVER: Final = float("inf")
PREFIX: Final = b"hist/"
# With these statuses a write may have been made or not: cancelled, unknown, deadline exceeded,
# aborted, unavailable.
OPEN_CODES: Final = (1, 2, 4, 10, 14)
REFUSED_FOR_CERTAIN: Final = ("etcdserver: too many requests",)


class HistoryClient(threading.Thread):
    """One client; `operations` is its history once it has ended."""

    def __init__(
        self,
        cluster: Cluster,
        members: Callable[[], Sequence[ClusterMember]],
        number: int,
        seed: int,
        *,
        plants_stale_reads: bool = False,
        refusals: Sequence[str] = (),
    ) -> None:
        """``refusals``: texts with which a call may be refused, for certain and for now."""
        super().__init__(daemon=True, name=f"client {number}")
        self._cluster = cluster
        self._members = members
        self._plants_stale_reads = plants_stale_reads
        self._refusals = refusals
        self._at = number
        self._random = random.Random(f"{seed}/{number}")
        self._tag = f"{seed}.{number}."
        self._sequence = 0
        self._client: WireClient | None = None
        self._seen: dict[bytes, bytes | None] = {}  # what this client believes, for compares
        self._is_told_to_stop = threading.Event()
        self.operations: list[Operation] = []
        self.failures = 0  # calls that a member refused or a connection lost
        self.problems: list[str] = []

    def tell_to_stop(self) -> None:
        self._is_told_to_stop.set()

    def run(self) -> None:
        try:
            while not self._is_told_to_stop.is_set():
                if self._client is None and not self._connect():
                    self._is_told_to_stop.wait(RECONNECT_S)
                    continue
                self._step()
        except Exception as error:  # a client that dies in silence would be load that is missing
            self.problems.append(f"{self.name}: {error!r}")
        finally:
            self._disconnect()

    def _connect(self) -> bool:
        members = self._members()
        member = members[self._at % len(members)]
        try:
            self._client = self._cluster.wire_client(member, CALL_TIMEOUT_S)
        except OSError:
            self._at += 1
            return False
        return True

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _step(self) -> None:
        choice = self._random.randrange(100)
        key = PREFIX + b"%d" % self._random.randrange(KEYS)
        if choice < 35:
            value = self._value()
            put = pb.PutRequest(key=key, value=value)
            self._write(PUT, put, [(key, value)], ())
        elif choice < 50:
            self._compare_and_put(key)
        elif choice < 58:
            self._delete_key(key)
        else:
            self._read(key, is_linearizable=choice < 90)

    def _value(self) -> bytes:
        self._sequence += 1
        return f"{self._tag}{self._sequence}".encode()

    # -- writes --------------------------------------------------------------------------------

    def _compare_and_put(self, key: bytes) -> None:
        """Replace what this client believes stands at ``key``, and put a second key with it."""
        other = PREFIX + b"pair/" + key[len(PREFIX) :]
        believed = self._seen.get(key)
        value = self._value()
        changes: list[Change] = [(key, value), (other, value)]
        txn = pb.TxnRequest(
            compare=[_equals(key, believed)],
            success=[
                pb.RequestOp(request_put=pb.PutRequest(key=name, value=value))
                for name in (key, other)
            ],
            failure=[pb.RequestOp(request_range=pb.RangeRequest(key=key))],
        )
        self._write(TXN, txn, changes, [(key, believed)])

    def _delete_key(self, key: bytes) -> None:
        self._write(DELETE, pb.DeleteRangeRequest(key=key, prev_kv=True), [(key, None)], ())

    def _write(
        self, path: str, request: Any, changes: list[Change], expected: Sequence[Change]
    ) -> None:
        began = time.monotonic()
        stream = self._call(path, request)
        ended = time.monotonic()
        if stream is None or stream.code in OPEN_CODES:
            if stream is None or stream.text not in REFUSED_FOR_CERTAIN:
                self.operations.append(Write(began, NEVER, changes, 0, expected, self.name))
            return
        if not self._is_good(stream):
            return
        if path == PUT:
            response: Any = pb.PutResponse.FromString(stream.messages[0])
        elif path == DELETE:
            response = pb.DeleteRangeResponse.FromString(stream.messages[0])
        else:
            response = pb.TxnResponse.FromString(stream.messages[0])
        revision = response.header.revision
        if path == DELETE and not response.deleted:
            read = Read(began, ended, changes[0][0], None, 0, revision, who=self.name)
            self.operations.append(read)
        elif path == TXN and not response.succeeded:
            self.operations.append(CompareFailed(began, ended, expected, revision, self.name))
            kvs = response.responses[0].response_range.kvs
            self._note_read(expected[0][0], kvs, revision, began, ended)
        else:
            write = Write(began, ended, changes, revision, expected, self.name)
            self.operations.append(write)
            self._seen.update(changes)

    # -- reads ---------------------------------------------------------------------------------

    def _read(self, key: bytes, *, is_linearizable: bool) -> None:
        is_local = self._plants_stale_reads or not is_linearizable
        request = pb.RangeRequest(key=key, serializable=is_local)
        began = time.monotonic()
        stream = self._call(RANGE, request)
        ended = time.monotonic()
        if stream is None or stream.code in OPEN_CODES or not self._is_good(stream):
            return
        answer = pb.RangeResponse.FromString(stream.messages[0])
        self._note_read(
            key, answer.kvs, answer.header.revision, began, ended, is_linearizable=is_linearizable
        )

    def _note_read(
        self,
        key: bytes,
        kvs: Any,
        revision: int,
        began: float,
        ended: float,
        *,
        is_linearizable: bool = True,
    ) -> None:
        value, mod_revision = (kvs[0].value, kvs[0].mod_revision) if kvs else (None, 0)
        read = Read(began, ended, key, value, mod_revision, revision, is_linearizable, self.name)
        self.operations.append(read)
        self._seen[key] = value

    # -- calls ---------------------------------------------------------------------------------

    def _call(self, path: str, request: Any) -> WireStream | None:
        """Make one call; None when the connection was lost and nobody knows."""
        assert self._client is not None
        try:
            stream = self._client.call(path, request.SerializeToString())
        except (ConnectionFailedError, OSError):
            self._go_on()
            return None
        if stream.code is None or stream.code in OPEN_CODES:
            self._go_on()
        return None if stream.code is None else stream

    def _go_on(self) -> None:
        self.failures += 1
        self._disconnect()
        self._at += 1

    def _is_good(self, stream: WireStream) -> bool:
        if stream.code == 0:
            return True
        if stream.text in self._refusals:
            self._go_on()
            return False
        self.problems.append(f"{self.name}: status {stream.code} {stream.text}")
        return False


def _equals(key: bytes, value: bytes | None) -> Any:
    if value is None:
        return pb.Compare(key=key, target=pb.Compare.CREATE, create_revision=0)
    return pb.Compare(key=key, target=pb.Compare.VALUE, value=value)


def read_log(client: WireClient, first: int, last: int) -> list[LogEntry]:
    """Return the revisions ``first`` to ``last`` as a watch through ``client`` tells them."""
    if last < first:
        return []
    entries: dict[int, LogEntry] = {}
    stream = client.open(WATCH)
    create = pb.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=first)
    client.send(stream, pb.WatchRequest(create_request=create).SerializeToString())
    deadline = time.monotonic() + LOG_TIMEOUT_S
    while last not in entries:
        client.receive(deadline)
        for message in stream.take_messages():
            response = pb.WatchResponse.FromString(message)
            if response.canceled:
                raise ConnectionFailedError(f"the watch for the log ended: {response}")
            for event in response.events:
                entry = entries.setdefault(event.kv.mod_revision, LogEntry(event.kv.mod_revision))
                entry.changes.append((event.kv.key, event.kv.value if event.type == 0 else None))
        if stream.is_ended:
            raise ConnectionFailedError(f"the watch for the log ended: {stream.text}")
    client.reset(stream)
    return [entries[revision] for revision in sorted(entries) if revision <= last]


def run_clients(
    cluster: Cluster,
    members: Callable[[], Sequence[ClusterMember]],
    count: int,
    seed: int,
    meanwhile: Callable[[], None],
    *,
    plants_stale_reads: bool = False,
    refusals: Sequence[str] = (),
) -> list[HistoryClient]:
    """Let ``count`` clients work while ``meanwhile`` runs; returns them when they have ended.

    ``members`` says whom they may ask, anew whenever one of them connects.  With
    ``plants_stale_reads`` they read locally and say that it was linearizable: the checker, not the
    cluster, is then under test.
    """
    clients = [
        HistoryClient(
            cluster, members, i, seed, plants_stale_reads=plants_stale_reads, refusals=refusals
        )
        for i in range(count)
    ]
    for client in clients:
        client.start()
    try:
        meanwhile()
    finally:
        for client in clients:
            client.tell_to_stop()
        for client in clients:
            client.join()
    return clients


def check_history(
    cluster: Cluster, checker: RevisionOrderChecker, clients: Sequence[HistoryClient]
) -> int:
    """Check what ``clients`` did against the log of each member; returns the acknowledged writes.

    Raises `AssertionError` with what is wrong.
    """
    problems = [text for client in clients for text in client.problems]
    operations = [operation for client in clients for operation in client.operations]
    revision = cluster.revision()
    cluster.wait_applied(revision)
    logs = []
    for member in cluster.serving:
        wire = cluster.wire_client(member)
        try:
            logs.append(read_log(wire, checker.revision + 1, revision))
        finally:
            wire.close()
    assert all(log == logs[0] for log in logs), "the logs of the members differ"
    problems += checker.check(operations, logs[0])
    assert not problems, "\n".join(problems)
    cluster.assert_equal(revision)
    return sum(isinstance(operation, Write) and operation.revision > 0 for operation in operations)
