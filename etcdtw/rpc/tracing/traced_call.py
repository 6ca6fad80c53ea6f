"""Calls that are sampled: what they stand for, and the spans that end with them.

Each stands between a service and the call that it answers; both see a call like any other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import DecodeError

from etcdtw.grpc.call import (
    CANCELLED,
    DATA_LOSS,
    DEADLINE_EXCEEDED,
    INTERNAL,
    OK,
    UNAVAILABLE,
    UNIMPLEMENTED,
    UNKNOWN,
    StatusError,
)
from etcdtw.grpc.wrapped_call import WrappedCall
from etcdtw.rpc.tracing.operations import granted, operation_of, watch_operation
from etcdtw.rpc.tracing.seams import Span
from etcdtw.wire import etcdserverpb as pb

SPANS_MAX: Final = 1_000
"""Of one stream that are not ended; what is asked beyond them has none."""
CODE_NAMES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
ERRORS: Final = frozenset(
    (UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS)
)
"""Codes that are the server's fault, as OpenTelemetry has it; others are no errors of spans."""


class TracedCall(WrappedCall):
    """A unary call.  Implements `grpc.call.Call`, `HasClient` and `RepliesInParts`.

    ``inner``: the call that is answered, which offers these, too.  ``now_ms``: the clock by which
    deadlines of calls are told.
    """

    def __init__(self, inner: Any, span: Span, path: str, now_ms: Callable[[], int]) -> None:
        super().__init__(inner)
        self._now_ms = now_ms
        self._span = span
        self._path = path
        self._part: Span | None = None
        self.on_end: Callable[[], None] | None = None
        inner.on_end = self._ended

    def asked(self, message: bytes) -> None:
        """Begin the span of what the request does."""
        operation = operation_of(self._path, message)
        if operation is not None:
            self._part = self._span.child(operation.name, operation.attributes)

    def refused(self, error: StatusError) -> None:
        """The request was not even begun: etcd has no span for what it would have done."""
        self._part = None
        self.over(error.code, error.message)

    def over(self, code: int, text: str = "") -> None:
        """End all spans."""
        if self._part is not None:
            self._part.end()
        end_call(self._span, code, text)
        self._inner.on_end = None

    def tell(self, reply: bytes) -> None:
        """Note what only the answer tells."""
        if self._part is not None:
            self._part.set(granted(self._path, reply))

    def reply(self, message: bytes) -> None:
        if self._inner.is_open:
            self.tell(message)
            self._inner.reply(message)
            self.over(OK)

    def end_reply(self) -> None:
        if self._inner.is_open:
            self._inner.end_reply()
            self.over(OK)

    def fail(self, code: int, message: str) -> None:
        if self._inner.is_open:
            self._inner.fail(code, message)
            self.over(code, message)

    def _ended(self) -> None:
        """Its client, its connection or its deadline has ended it."""
        on_end, deadline_ms = self.on_end, self._inner.deadline_ms
        is_late = deadline_ms is not None and self._now_ms() >= deadline_ms
        self.over(DEADLINE_EXCEEDED if is_late else CANCELLED)
        if on_end is not None:
            on_end()


class TracedStream(TracedCall):
    """A stream.  Implements `grpc.call.KeepsOctets`, `SendsMany` and `SendsInParts`, too."""

    def __init__(self, inner: Any, span: Span, path: str, now_ms: Callable[[], int]) -> None:
        super().__init__(inner, span, path, now_ms)
        self._refusal: StatusError | None = None
        inner.on_message = self._message
        inner.on_half_close = self._half_closed
        inner.on_drain = self._drained

    def received(self, message: bytes) -> None:
        """A request has come."""
        if self._part is None:
            self.asked(message)

    def answered(self, message: bytes) -> None:
        """A response goes out."""

    def send(self, message: bytes) -> None:
        self.answered(message)
        self._inner.send(message)

    def send_all(self, messages: list[bytes]) -> None:
        for message in messages:
            self.answered(message)
        self._inner.send_all(messages)

    def send_parts(self, parts: list[bytes]) -> None:
        """A large message: nothing that begins or ends a span is one."""
        self._inner.send_parts(parts)

    def keep(self, octets: int) -> bool:
        return bool(self._inner.keep(octets))

    def finish(self) -> None:
        if self._inner.is_open:
            self._inner.finish()
            self.over(OK)

    def _message(self, message: bytes) -> None:
        self.received(message)
        if self.on_message is not None:
            try:
                self.on_message(message)
            except StatusError as error:
                self._refusal = error
                raise

    def _half_closed(self) -> None:
        if self.on_half_close is not None:
            self.on_half_close()

    def _drained(self) -> None:
        if self.on_drain is not None:
            self.on_drain()

    def _ended(self) -> None:
        refusal = self._refusal
        if refusal is not None:
            on_end = self.on_end
            self.over(refusal.code, refusal.message)
            if on_end is not None:
                on_end()
        else:
            super()._ended()


class TracedKeepAlives(TracedStream):
    """A stream of keep-alives: a span from each request to its answer, which keep their order."""

    def __init__(self, inner: Any, span: Span, path: str, now_ms: Callable[[], int]) -> None:
        super().__init__(inner, span, path, now_ms)
        self._renewals: deque[Span | None] = deque()

    def received(self, message: bytes) -> None:
        operation = operation_of(self._path, message)
        if operation is not None and len(self._renewals) < SPANS_MAX:
            self._renewals.append(self._span.child(operation.name, operation.attributes))
        else:
            self._renewals.append(None)

    def answered(self, message: bytes) -> None:
        if self._renewals:
            renewal = self._renewals.popleft()
            if renewal is not None:
                renewal.end()

    def over(self, code: int, text: str = "") -> None:
        while self._renewals:
            self.answered(b"")
        super().over(code, text)


class TracedWatches(TracedStream):
    """A stream of watches: a span for each, from its creation to its cancellation.

    Responses are looked at only while one that was asked for is not created yet.
    """

    def __init__(self, inner: Any, span: Span, path: str, now_ms: Callable[[], int]) -> None:
        super().__init__(inner, span, path, now_ms)
        self._asked: deque[Span | None] = deque()
        self._created: dict[int, Span] = {}

    def received(self, message: bytes) -> None:
        try:
            request = pb.WatchRequest.FromString(message)
        except DecodeError:
            return
        kind = request.WhichOneof("request_union")
        if kind == "create_request":
            span = None
            if len(self._asked) + len(self._created) < SPANS_MAX:
                operation = watch_operation(request.create_request)
                span = self._span.child(operation.name, operation.attributes)
            self._asked.append(span)
        elif kind == "cancel_request":
            watch = self._created.pop(request.cancel_request.watch_id, None)
            if watch is not None:
                watch.end()

    def answered(self, message: bytes) -> None:
        if not self._asked:
            return
        response = pb.WatchResponse.FromString(message)
        if response.created:
            span = self._asked.popleft()
            # One that was refused has no span, as in etcd.
            if span is not None and not response.canceled:
                self._created[response.watch_id] = span

    def over(self, code: int, text: str = "") -> None:
        for watch in self._created.values():
            watch.end()
        self._created.clear()
        self._asked.clear()
        super().over(code, text)


def end_call(span: Span, code: int, text: str) -> None:
    """End the span of a call, with its status."""
    span.set({"rpc.response.status_code": CODE_NAMES[code]})
    if code in ERRORS:
        span.fail(text)
    span.end()
