"""What makes spans, as calls see it; implemented over OpenTelemetry in `server.process.tracing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from etcdtw.grpc.call import Call

CARRIED: Final = (b"traceparent", b"tracestate")
"""What a call says of the trace that it belongs to (W3C's metadata; its baggage is of no use
here: nobody is called)."""
Attributes = Mapping[str, str | int | bool]


class Span(Protocol):
    """Something that takes time.  One that is never ended is never told of."""

    def child(self, name: str, attributes: Attributes) -> Span:
        """Begin a part of it."""
        ...

    def set(self, attributes: Attributes) -> None: ...

    def fail(self, text: str) -> None:
        """It ends with an error."""
        ...

    def end(self) -> None: ...


class Tracer(Protocol):
    """Begins the span of a call."""

    def begin(self, name: str, call: Call) -> Span | None:
        """Return the span of ``call``; None: it is not sampled."""
        ...
