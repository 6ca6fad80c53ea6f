"""Maintenance.Snapshot: the state as etcd's database file, in chunks, sealed with its SHA-256.

::

    OPENED -request-> EXPORTING -file-> READING <-> PAUSED: the client reads slowly
                                           | all sent
    any state -- call over, failure -->  ENDED

The file loses its name as soon as it is open, so that nothing can leave it behind.  Threads read
and hash it; memory holds a slice or two.  Source: etcd v3 api, Maintenance.Snapshot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from etcdtw.apply.errors import TooManyRequestsError
from etcdtw.grpc.call import INTERNAL, RESOURCE_EXHAUSTED, UNKNOWN, Call, MethodTable
from etcdtw.node.facade import Facade
from etcdtw.rpc.decode import MALFORMED_MESSAGE
from etcdtw.rpc.errors import fail
from etcdtw.storage.snapshot.export import SnapshotExport
from etcdtw.transport.peer.snapshot_out import Offload
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.histogram import Histogram, exponential_bounds

CHUNK_SIZE: Final = 32 * 1024
"""Octets of one message; etcd's number."""
SLICE_SIZE: Final = 256 * 1024
"""Octets that a thread reads and hashes at a time."""
QUEUED_BYTES_MAX: Final = 1 << 20  # sent, and not yet let out by flow control; a slice more
STREAMS_MAX: Final = 3
"""At once, files of aborted ones included; one export fewer than the state makes at a time, so
that peers can always have one."""
STALLED_S: Final = 60.0
"""A client that takes nothing for so long is given up: its file takes the room of all data."""
STALLED: Final = f"etcdtw: nothing of the snapshot was read for {STALLED_S:g} s"
SNAPSHOT_BOUNDS_S: Final = exponential_bounds(0.01, 17)

OPENED: Final = 0
EXPORTING: Final = 1
READING: Final = 2
PAUSED: Final = 3
ENDED: Final = 4


class SnapshotService:
    """Opens snapshot streams.  ``offload`` runs what may wait for the disk."""

    def __init__(self, node: Facade, offload: Offload) -> None:
        self.node = node
        self.offload = offload
        self.streams = 0
        """Under way, or ended with their export or their file still there."""
        self.snapshot_s = Histogram(SNAPSHOT_BOUNDS_S)

    def register(self, methods: MethodTable) -> None:
        """Add this service's method."""
        methods.add_server_stream("/etcdserverpb.Maintenance/Snapshot", self.opened)

    def opened(self, call: Call) -> None:
        """Serve one stream."""
        SnapshotStream(self, call)


class SnapshotStream:
    """One Snapshot call, from its request to its seal."""

    log = Logger()

    def __init__(self, service: SnapshotService, call: Call) -> None:
        self.state = OPENED
        self._service = service
        self._clock = service.node.clock
        self._call = call
        self._version = ""
        self._file: FileIO | None = None
        self._path = Path()
        self._size = 0
        self._sent = 0
        self._digest = hashlib.sha256()
        self._started_s = 0.0
        self._timer: IDelayedCall | None = None
        call.on_message = self._requested
        call.on_drain = self._drained
        call.on_end = self._abandoned

    def _requested(self, message: bytes) -> None:
        if self.state != OPENED:
            return  # a server stream has one request
        try:
            pb.SnapshotRequest.FromString(message)
        except DecodeError:
            self._call.fail(INTERNAL, MALFORMED_MESSAGE)
            return
        service = self._service
        if service.streams >= STREAMS_MAX:
            fail(self._call, TooManyRequestsError())
            return
        service.streams += 1
        self.state = EXPORTING
        self._started_s = self._clock.seconds()
        self._version = service.node.members.storage_version
        service.node.snapshots.export(self._exported, self._version)

    def _exported(self, path: Path, found: SnapshotExport | str) -> None:
        if isinstance(found, str):
            self._service.streams -= 1
            self._fail(found)
            return
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            self._service.streams -= 1
            self._service.node.snapshots.dispose(path)
            self._fail(str(error))
            return
        self._path = path
        if self.state == ENDED:
            self._close()
            return
        self._size = found.size
        self.log.info(
            "sending a snapshot of {octets} octets at index {index} to a client",
            octets=found.size,
            index=found.index,
        )
        self._read()

    def _read(self) -> None:
        """Have the next slice read; its end, good or bad, comes to `_slice_read` or `_broken`."""
        self.state = READING
        assert self._file is not None, "reading before the file was open"
        wanted = min(SLICE_SIZE, self._size - self._sent)
        read = partial(_read_slice, self._file, wanted, self._digest.update)
        reading = maybeDeferred(self._service.offload, read)
        reading.addCallback(self._slice_read)
        reading.addErrback(self._broken)

    def _slice_read(self, data: bytes) -> None:
        if self.state == ENDED:
            self._close()
            return
        if not data:
            raise EOFError(f"the file ends after {self._sent} octets of {self._size}")
        for start in range(0, len(data), CHUNK_SIZE):
            chunk = data[start : start + CHUNK_SIZE]
            self._sent += len(chunk)
            self._send(chunk)
        if self._sent == self._size:
            self._finish()
        elif self._call.queued > QUEUED_BYTES_MAX:
            self.state = PAUSED
            self._watch_client()
        else:
            self._read()

    def _send(self, blob: bytes) -> None:
        response = pb.SnapshotResponse(
            remaining_bytes=self._size - self._sent, blob=blob, version=self._version
        )
        self._call.send(response.SerializeToString())

    def _finish(self) -> None:
        self._send(self._digest.digest())
        self._call.finish()
        took_s = self._clock.seconds() - self._started_s
        self._service.snapshot_s.observe(took_s)
        self.log.info(
            "sent a snapshot of {octets} octets to a client in {took_s:.1f} s",
            octets=self._size,
            took_s=took_s,
        )
        self.state = ENDED
        self._close()

    def _broken(self, failure: Failure) -> None:
        self.log.error("a snapshot cannot be sent: {why}", why=failure.getErrorMessage())
        self._fail(failure.getErrorMessage())
        self._close()

    # The client.

    def _drained(self) -> None:
        if self.state == PAUSED:
            self._stop_watching()
            self._read()

    def _watch_client(self) -> None:
        self._timer = self._clock.callLater(STALLED_S, self._look, self._call.queued)

    def _look(self, queued: int) -> None:
        """Give up a client that has taken nothing since ``queued`` octets waited for it."""
        self._timer = None
        if self._call.queued < queued:
            self._watch_client()
            return
        self.state = ENDED
        self._call.fail(RESOURCE_EXHAUSTED, STALLED)
        self._close()

    def _abandoned(self) -> None:
        """The call is over: by the client, its deadline or its connection."""
        state, self.state = self.state, ENDED
        self._stop_watching()
        if state == PAUSED:
            self._close()
        # An export or a read under way comes back here first.

    # The end.

    def _fail(self, text: str) -> None:
        if self.state != ENDED:
            self.state = ENDED
            self._call.fail(UNKNOWN, text)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        """Let the file go."""
        file, self._file = self._file, None
        if file is None:
            return
        file.close()
        self._service.node.snapshots.dispose(self._path)
        self._service.streams -= 1


def _read_slice(file: FileIO, size: int, hashed: Callable[[bytes], None]) -> bytes:
    data = file.read(size)
    hashed(data)
    return data
