"""Pages that take bodies and pages that stream, on a client port."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime

from etcdtw.gateway.pages import Answer, Arguments, Pages, Posted, Streamed, Taking
from etcdtw.grpc.call import MethodTable
from etcdtw.grpc.stats import ServerStats
from etcdtw.transport.client.http1_site import HttpSite
from etcdtw.transport.client.port import ClientPort
from etcdtw.transport.flusher import Flusher

PEER = IPv4Address("TCP", "127.0.0.1", 4000)
BODY_SIZE_MAX = 100_000
PART_SIZE = 16_384


class Source:
    """Parts as they are given; or parts without end."""

    def __init__(self, endless: bytes = b"") -> None:
        self.parts: list[bytes | Exception | None] = []
        self.endless = endless
        self.taken = 0
        self.cancels = 0
        self._waiter: Deferred[bytes | None] | None = None

    def give(self, *parts: bytes | Exception | None) -> None:
        self.parts += parts
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            self.receive().chainDeferred(waiter)

    def receive(self) -> Deferred[bytes | None]:
        assert self._waiter is None, "one at a time"
        self.taken += 1
        if self.endless:
            return succeed(self.endless)
        if not self.parts:
            self._waiter = Deferred(self._wait_no_more)
            return self._waiter
        part = self.parts.pop(0)
        return fail(part) if isinstance(part, Exception) else succeed(part)

    def cancel(self) -> None:
        self.cancels += 1

    def _wait_no_more(self, _: Deferred[bytes | None]) -> None:
        self._waiter = None


class PageSet:
    """/echo (POST), /both (GET and POST), /later (POST), /stream and /flood (GET), /given (GET)."""

    def __init__(self, clock: IReactorTime) -> None:
        self.sources: list[Source] = []
        self.posted: list[Posted] = []
        self.waiting: list[Deferred[Answer]] = []
        self.pages = Pages(
            {
                b"/both": lambda arguments: Answer(200, b"got"),
                b"/stream": lambda arguments: self._stream(Source()),
                b"/flood": lambda arguments: self._stream(Source(bytes(PART_SIZE))),
                b"/given": self._given,
            },
            taking={
                b"/echo": Taking(self._echo, BODY_SIZE_MAX),
                b"/both": Taking(self._echo, 10),
                b"/later": Taking(self._later, BODY_SIZE_MAX),
            },
            clock=clock,
        )

    def _echo(self, posted: Posted) -> Answer:
        self.posted.append(posted)
        return Answer(200, posted.body)

    def _later(self, posted: Posted) -> Deferred[Answer]:
        self.posted.append(posted)
        answer: Deferred[Answer] = Deferred()
        self.waiting.append(answer)
        return answer

    def _stream(self, source: Source) -> Streamed:
        self.sources.append(source)
        return Streamed(200, source)

    def _given(self, arguments: Arguments) -> Answer:
        """What the newest source has given, and how often it was cancelled."""
        source = self.sources[-1]
        return Answer(200, b"%d %d" % (source.taken * PART_SIZE, source.cancels))


def build_port(clock: IReactorTime, stats: ServerStats, pages: Pages) -> ClientPort:
    """Return a client port with these pages and no calls."""
    site = HttpSite(
        pages, clock, body_size_max=pages.body_size_max, stats=stats, unix_s=clock.seconds
    )
    return ClientPort(clock, MethodTable(), stats, Flusher(clock), site=site)
