"""The seam between HTTP of either version and what answers its requests.

`http1` and `http2_routes` carry requests; `gateway.pages` answers them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import ITCPTransport

from etcdtw.http1.answers import Fields


class TakenLine(Protocol):
    """A connection that is another protocol's now, for its `Successor`."""

    def write(self, data: bytes) -> None:
        """Send octets; what the client does not read is told by `Successor.clogged`."""
        ...

    def end(self) -> None:
        """Close behind what was written."""
        ...

    def pause(self) -> None:
        """Take nothing more from the client for now."""
        ...

    def resume(self) -> None:
        """Go on taking."""
        ...


class Successor(Protocol):
    """What speaks on a connection behind the last request of HTTP."""

    def began(self, line: TakenLine) -> None:
        """The client was told so."""
        ...

    def received(self, data: bytes) -> None:
        """Octets have come."""
        ...

    def clogged(self) -> None:
        """The client does not read: it is to be told nothing more."""
        ...

    def drained(self) -> None:
        """It reads again."""
        ...

    def lost(self) -> None:
        """The connection is gone."""
        ...


class HttpRequest(Protocol):
    """One request, whole, and its answer: whole by `respond`, or from `begin` to `finish`.

    ``path``: of the target, as it came, without ``query``.  ``broken``: why the body ends before
    its end, in Go's words; empty: it does not.  ``connection``: the same for all requests of one.
    """

    verb: bytes
    path: bytes
    query: bytes
    body: bytes
    broken: str
    connection: ITCPTransport
    on_end: Callable[[], None] | None
    """Called once if the client goes before the answer is over."""
    on_drain: Callable[[], None] | None
    """Called when `is_full` is over."""

    @property
    def host(self) -> bytes:
        """Name and port that the client asks for; empty where it names none."""
        ...

    @property
    def is_secure(self) -> bool: ...

    @property
    def is_full(self) -> bool:
        """Whether the client leaves unread as much of its answer as it may."""
        ...

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a field; ``name`` in any case."""
        ...

    def respond(self, status: int, fields: Fields, body: bytes) -> None:
        """Answer; to a client that has gone this does nothing."""
        ...

    def begin(self, status: int, fields: Fields) -> None:
        """Begin an answer; pieces follow."""
        ...

    def send(self, piece: bytes) -> None:
        """Send the next octets; watch `is_full`."""
        ...

    def finish(self) -> None:
        """End the answer behind what was sent."""
        ...

    def break_off(self) -> None:
        """End an answer that cannot go on; its client sees that it is not whole."""
        ...

    def let_go(self) -> None:
        """The body is not needed any more; it counts no longer."""
        ...

    def take_over(self, successor: Successor, head: bytes) -> bool:
        """Give the connection away; ``head`` is the last that is said in HTTP.

        False: it carries other requests, too.
        """
        ...


class Routes(Protocol):
    """Answers requests."""

    def serve(self, request: HttpRequest) -> None:
        """Answer now or later."""
        ...
