"""The seam between gRPC and the services: methods, calls and how they end.

Services know no HTTP/2.  A unary handler gets the call and the request's octets; it returns
the reply's octets at once, or None and answers later through the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

from etcdtw.grpc.caller import Caller

UNARY: Final = 0
SERVER_STREAM: Final = 1
BIDI_STREAM: Final = 2

OK: Final = 0
CANCELLED: Final = 1
UNKNOWN: Final = 2
INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
NOT_FOUND: Final = 5
ALREADY_EXISTS: Final = 6
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
FAILED_PRECONDITION: Final = 9
ABORTED: Final = 10
OUT_OF_RANGE: Final = 11
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
DATA_LOSS: Final = 15
UNAUTHENTICATED: Final = 16


class StatusError(Exception):
    """A call ends with this status.  ``message`` is the text the client sees."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Call(Protocol):
    """One call on the server side.  After it ended, every method here does nothing."""

    on_message: Callable[[bytes], None] | None
    """Streaming calls: one request message arrived."""
    on_half_close: Callable[[], None] | None
    """Streaming calls: the client sends no more."""
    on_end: Callable[[], None] | None
    """Called once when the call ends by the client (a breach of the framing included), the
    connection or the deadline (never by `reply`, `finish` or `fail`): drop what you hold for it."""
    on_drain: Callable[[], None] | None
    """Streaming calls: `queued` has fallen to zero after having been above it."""

    @property
    def is_open(self) -> bool: ...

    @property
    def queued(self) -> int:
        """Octets accepted by `send` that flow control does not yet let out."""
        ...

    @property
    def deadline_ms(self) -> int | None:
        """When the client gives up, on the transport's clock; None: never."""
        ...

    @property
    def caller(self) -> Caller:
        """Who makes it; looked at for each call, never kept for a header block."""
        ...

    def metadata(self, name: bytes) -> bytes | None:
        """Return the first value of a (lower-case) metadata key."""
        ...

    def reply(self, message: bytes) -> None:
        """Unary: send the response with status OK."""
        ...

    def send(self, message: bytes) -> None:
        """Streaming: send one message, as flow control admits."""
        ...

    def finish(self) -> None:
        """Streaming: end the call with status OK, after what was sent."""
        ...

    def fail(self, code: int, message: str) -> None:
        """End the call with an error status."""
        ...


@runtime_checkable
class SendsMany(Protocol):
    """What a streaming call may offer besides: several messages for the price of one."""

    def send_all(self, messages: list[bytes]) -> None:
        """As `Call.send` for each of one or more messages, in order."""
        ...


@runtime_checkable
class SendsInParts(Protocol):
    """What a streaming call may offer besides: a large message without ever joining its parts."""

    def send_parts(self, parts: list[bytes]) -> None:
        """As `Call.send` for the message that ``parts``, none of them empty, are joined."""
        ...


@runtime_checkable
class KeepsOctets(Protocol):
    """What a streaming call may offer besides: to count what its service keeps for it."""

    def keep(self, octets: int) -> bool:
        """Note that ``octets`` are kept now; False: that is more than is granted, end the call."""
        ...


@runtime_checkable
class RepliesInParts(Protocol):
    """What a unary call may offer besides: a large response without ever joining its parts."""

    def begin_reply(self, size: int) -> None:
        """Begin the response; the parts of its ``size`` octets follow."""
        ...

    def continue_reply(self, part: bytes) -> None:
        """Send the next octets; watch `Call.queued`."""
        ...

    def end_reply(self) -> None:
        """End with status OK, behind the last part."""
        ...


class Client(Protocol):
    """Who calls: one connection."""

    @property
    def unread(self) -> int:
        """Octets of answers to it, of all its calls, that it has not taken."""
        ...


@runtime_checkable
class HasClient(Protocol):
    """What a call may offer besides: whose it is."""

    @property
    def client(self) -> Client | None:
        """The same for all calls of a connection; None once the call has ended."""
        ...


UnaryHandler = Callable[[Call, bytes], "bytes | None"]
StreamHandler = Callable[[Call], None]


class Method:
    """One RPC: its path, its kind and who answers it."""

    __slots__ = ("kind", "opened", "path", "unary")

    def __init__(
        self, path: str, kind: int, unary: UnaryHandler | None, opened: StreamHandler | None
    ) -> None:
        self.path = path
        self.kind = kind
        self.unary = unary
        self.opened = opened

    def served_by(self, unary: UnaryHandler, opened: StreamHandler) -> Method:
        """Return this method with others who answer it: one of the two, as its kind has it."""
        return Method(
            self.path,
            self.kind,
            None if self.unary is None else unary,
            None if self.opened is None else opened,
        )


Metadata = Callable[[bytes], "bytes | None"]
"""As `Call.metadata`."""
Screen = Callable[[Method, Metadata], tuple[str, Method]]
"""Judges a method's caller once for each distinct header block: returns a label to count its
calls under (of a bounded set) and the method to call.  Raises `StatusError` to refuse."""


def admit_all(method: Method, metadata: Metadata) -> tuple[str, Method]:
    """The screen that refuses nobody and tells nobody apart."""
    return "", method


class MethodTable:
    """All methods of a server, by ``:path``.  Unknown paths are UNIMPLEMENTED."""

    def __init__(self, screen: Screen = admit_all) -> None:
        """``screen`` decides on each call before its method is called."""
        self._methods: dict[bytes, Method] = {}
        self.screen = screen

    def add_unary(self, path: str, handler: UnaryHandler) -> None:
        """``handler`` may raise `StatusError`."""
        self._methods[path.encode()] = Method(path, UNARY, handler, None)

    def add_server_stream(self, path: str, opened: StreamHandler) -> None:
        """``opened`` sets the call's callbacks; the one request arrives by ``on_message``."""
        self._methods[path.encode()] = Method(path, SERVER_STREAM, None, opened)

    def add_bidi_stream(self, path: str, opened: StreamHandler) -> None:
        """``opened`` sets the call's callbacks."""
        self._methods[path.encode()] = Method(path, BIDI_STREAM, None, opened)

    def find(self, path: bytes) -> Method | None:
        return self._methods.get(path)

    def paths(self) -> list[str]:
        return sorted(method.path for method in self._methods.values())
