"""A table of methods whose calls are traced; the methods themselves know nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcdtw.grpc.call import (
    BIDI_STREAM,
    OK,
    UNARY,
    Call,
    Metadata,
    Method,
    MethodTable,
    StatusError,
)
from etcdtw.rpc.tracing.operations import LEASE_KEEP_ALIVE, WATCH
from etcdtw.rpc.tracing.seams import Tracer
from etcdtw.rpc.tracing.traced_call import (
    TracedCall,
    TracedKeepAlives,
    TracedStream,
    TracedWatches,
)

_STREAMS: Final[dict[str, type[TracedStream]]] = {
    LEASE_KEEP_ALIVE: TracedKeepAlives,
    WATCH: TracedWatches,
}


def traced(methods: MethodTable, tracer: Tracer, now_ms: Callable[[], int]) -> MethodTable:
    """Return the same methods behind the same screen; calls that are sampled have spans.

    ``now_ms``: the clock by which deadlines of calls are told.  A call that its screen refuses has
    no span (real etcd's has one).
    """

    def screen(method: Method, metadata: Metadata) -> tuple[str, Method]:
        label, chosen = methods.screen(method, metadata)
        return label, _Traced(chosen, tracer, now_ms).method

    table = MethodTable(screen)
    for path in methods.paths():
        method = methods.find(path.encode())
        assert method is not None
        if method.kind == UNARY:
            assert method.unary is not None
            table.add_unary(path, method.unary)
        else:
            assert method.opened is not None
            add = table.add_bidi_stream if method.kind == BIDI_STREAM else table.add_server_stream
            add(path, method.opened)
    return table


class _Traced:
    """One method."""

    def __init__(self, inner: Method, tracer: Tracer, now_ms: Callable[[], int]) -> None:
        self._inner = inner
        self._now_ms = now_ms
        self._tracer = tracer
        self._name = inner.path[1:]
        self.method = inner.served_by(self._unary, self._opened)

    def _unary(self, call: Call, message: bytes) -> bytes | None:
        unary = self._inner.unary
        assert unary is not None
        span = self._tracer.begin(self._name, call)
        if span is None:
            return unary(call, message)
        one = TracedCall(call, span, self._inner.path, self._now_ms)
        one.asked(message)
        try:
            reply = unary(one, message)
        except StatusError as error:
            one.refused(error)
            raise
        if reply is not None:
            one.tell(reply)
            one.over(OK)
        return reply

    def _opened(self, call: Call) -> None:
        opened = self._inner.opened
        assert opened is not None
        span = self._tracer.begin(self._name, call)
        if span is None:
            opened(call)
            return
        kind = _STREAMS.get(self._inner.path, TracedStream)
        stream = kind(call, span, self._inner.path, self._now_ms)
        try:
            opened(stream)
        except StatusError as error:
            stream.refused(error)
            raise
