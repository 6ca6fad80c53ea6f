"""Sends one snapshot to a peer: the message, then the database, on a connection of its own.

A file is read in slices by whoever ``offload`` stands for; what is no file gives them itself.
Either is read only as fast as the peer takes it: memory holds a slice or two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from struct import pack
from typing import Final, Protocol, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.cluster.ids import id_text
from etcdtw.raft.message import Message
from etcdtw.rafthttp.codec import encode_message
from etcdtw.rafthttp.headers import PeerIdentity, request_headers
from etcdtw.rafthttp.http import LAST_CHUNK, Head, encode_chunk
from etcdtw.transport.peer.client import Dial, PeerHttpClient, dial_peer
from etcdtw.transport.peer.seams import SnapshotOctets

SLICE_SIZE: Final = 256 * 1024
STALL_S: Final = 10.0
"""Without a slice read or sent."""
ANSWER_S: Final = 305.0
"""From the last octet to the answer: the peer builds a state from it meanwhile, for which it has
its port's ``install_s``.  Given up earlier it would come back behind a log that is compacted."""


_T = TypeVar("_T")


class Offload(Protocol):
    """Runs a function where it may block, and gives its result."""

    def __call__(self, function: Callable[[], _T], /) -> Deferred[_T]: ...


class SnapshotError(Exception):
    """The snapshot was not taken; says why."""


@implementer(IPushProducer)
class SnapshotUpload:
    """One snapshot on its way.  Is its connection's `ResponseSink`.

    ``done`` is called once with how it ended, unless `cancel` comes first.
    """

    log = Logger()

    def __init__(
        self,
        m: Message,
        source: str | SnapshotOctets,
        size: int,
        *,
        identity: PeerIdentity,
        url: str,
        dial: Dial,
        clock: IReactorTime,
        offload: Offload,
        done: Callable[[bool], None],
    ) -> None:
        self._message = m
        self._source = source
        self._size = size
        self._identity = identity
        self._url = url
        self._dial = dial
        self._clock = clock
        self._offload = offload
        self._done = done
        self._connection: PeerHttpClient | None = None
        self._run: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._is_paused = False
        self._wake: Deferred[None] | None = None  # the run waits for room, or for the answer
        self._status = 0
        self._failure = ""
        self._is_answered = False

    def start(self) -> None:
        if self._done is _ignore:
            return
        self._wait(STALL_S)
        self._run = Deferred.fromCoroutine(self._send())
        self._run.addCallbacks(self._succeeded, self._failed)

    def cancel(self) -> None:
        """Give up; ``done`` is not called."""
        self._done = _ignore
        if self._run is not None:
            self._run.cancel()
        self._clear()

    async def _send(self) -> None:
        connection = await dial_peer(self._dial, self._url, self)
        self._connection = connection
        connection.wire.registerProducer(self, True)
        headers = request_headers(self._identity)
        headers.append(("Content-Type", "application/octet-stream"))
        connection.request("POST", "/raft/snapshot", headers, None)
        octets = encode_message(self._message)
        connection.wire.write(encode_chunk(pack(">Q", len(octets)) + octets))
        await self._send_file(connection)
        connection.wire.write(LAST_CHUNK)
        connection.wire.unregisterProducer()
        self._wait(ANSWER_S)
        while not self._is_answered:
            await self._woken()
        if self._status not in (200, 204):
            raise SnapshotError(f"the peer answered with status {self._status}")

    async def _send_file(self, connection: PeerHttpClient) -> None:
        sent = 0
        while sent < self._size:
            wanted = min(self._size - sent, SLICE_SIZE)
            data = await self._read(sent, wanted)
            if not data:
                raise SnapshotError(f"it ends after {sent} octets of {self._size}")
            sent += len(data)
            connection.wire.write(encode_chunk(data))
            self._wait(STALL_S)
            while self._is_paused:
                await self._woken()
            if self._is_answered:
                raise SnapshotError(f"the peer refused it with status {self._status}")

    def _read(self, sent: int, wanted: int) -> Deferred[bytes]:
        source = self._source
        if isinstance(source, str):
            return self._offload(partial(_read_slice, source, sent, wanted))
        return source.read(wanted)

    def _woken(self) -> Deferred[None]:
        """Wait for whatever happens next on the connection.  Raises `SnapshotError`."""
        if self._failure:
            raise SnapshotError(self._failure)
        self._wake = Deferred()
        return self._wake

    def _awake(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            if self._failure:
                wake.errback(SnapshotError(self._failure))
            else:
                wake.callback(None)

    # -- what happens on the connection --------------------------------------------------------

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False
        self._awake()

    def stopProducing(self) -> None:
        """The connection is closing; `connection_broken` follows."""

    def response_began(self, head: Head) -> None:
        self._status = head.status

    def body_received(self, data: bytes) -> None:
        """The text of a refusal."""

    def response_ended(self, keeps_alive: bool) -> None:
        self._is_answered = True
        self._is_paused = False
        self._awake()

    def connection_broken(self, why: str) -> None:
        if not self._is_answered:
            self._fail(why)

    def _fail(self, why: str) -> None:
        self._failure = self._failure or why
        self._is_paused = True  # so that a run that is reading comes here before it writes again
        self._awake()

    # -- its end -------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.callLater(seconds, self._stalled)

    def _stalled(self) -> None:
        self._timer = None
        if self._run is not None:
            self._failure = "it stalled"
            self._run.cancel()

    def _succeeded(self, _: None) -> None:
        self._clear()
        self._done(True)

    def _failed(self, failure: Failure) -> None:
        self._clear()
        self.log.warn(
            "snapshot at index {index} to peer {peer} at {url}: {why}",
            index=self._message.snapshot.index if self._message.snapshot else 0,
            peer=id_text(self._message.to),
            url=self._url,
            why=self._failure or failure.getErrorMessage(),
        )
        self._done(False)

    def _clear(self) -> None:
        self._wake = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()


def _read_slice(path: str, start: int, size: int) -> bytes:
    # Opened each time: a slice that is still being read when all is given up closes its file.
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        return file.read(size)


def _ignore(ok: bool) -> None:
    """It was cancelled."""


def run_here(function: Callable[[], _T]) -> Deferred[_T]:
    """Be an `Offload` that blocks: for tests and small files."""
    return maybeDeferred(function)
