"""Spans by OpenTelemetry's SDK.  Imported only where traces are asked for.

An ended span costs the reactor an append to a bounded queue; a thread of the SDK's encodes and
sends it.  What does not fit is dropped, the oldest first.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span as LibrarySpan
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace import Tracer as LibraryTracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from etcdtw.config.config import Tracing
from etcdtw.grpc.call import Call
from etcdtw.rpc.tracing.seams import CARRIED, Attributes

QUEUE_SPANS_MAX: Final = 2048
"""Spans that wait for the exporter: the SDK's and etcd's default."""
BATCH_SPANS_MAX: Final = 64
"""Of one message to the collector: to encode it holds the interpreter for a few milliseconds."""
BATCH_DELAY_MS: Final = 1000
EXPORT_S: Final = 5.0
"""How long a collector may take for one message."""
ATTRIBUTES_LENGTH_MAX: Final = 4096
PER_MILLION: Final = 1_000_000
SCOPE: Final = "go.etcd.io/etcd"
CALLS_SCOPE: Final = "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
"""etcd's scopes: traces are searched by them."""


class OpenSpan:
    """Implements `rpc.tracing.seams.Span`."""

    __slots__ = ("_parts", "_span", "end")

    def __init__(self, span: LibrarySpan, parts: LibraryTracer) -> None:
        self._span = span
        self._parts = parts
        self.end = span.end

    def child(self, name: str, attributes: Attributes) -> OpenSpan:
        within = set_span_in_context(self._span, _NO_CONTEXT)
        return OpenSpan(self._parts.start_span(name, within, attributes=attributes), self._parts)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def fail(self, text: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, text))


_NO_CONTEXT: Final = Context()


class Library:
    """Makes spans and sends them; implements `rpc.tracing.seams.Tracer`."""

    def __init__(self, tracing: Tracing) -> None:
        rate = tracing.samples_per_million
        named = {"service.name": tracing.service_name}
        if tracing.instance_id:
            named["service.instance.id"] = tracing.instance_id
        self._begins_traces = rate > 0
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(rate / PER_MILLION) if rate else ALWAYS_OFF),
            resource=Resource(named),
            span_limits=SpanLimits(max_span_attribute_length=ATTRIBUTES_LENGTH_MAX),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(tracing.address, insecure=True, timeout=EXPORT_S)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=QUEUE_SPANS_MAX,
                schedule_delay_millis=BATCH_DELAY_MS,
                max_export_batch_size=BATCH_SPANS_MAX,
            )
        )
        self._calls = self._provider.get_tracer(CALLS_SCOPE)
        self._parts = self._provider.get_tracer(SCOPE)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, name: str, call: Call) -> OpenSpan | None:
        """See `rpc.tracing.seams.Tracer`; its parent is the one that the client names."""
        carried = {
            name.decode(): value.decode("latin-1")
            for name in CARRIED
            if (value := call.metadata(name)) is not None
        }
        if not carried and not self._begins_traces:
            return None
        context = self._propagator.extract(carried)
        attributes: dict[str, str | int] = {"rpc.method": name, "rpc.system.name": "grpc"}
        span = self._calls.start_span(name, context, SpanKind.SERVER, attributes)
        if not span.is_recording():
            return None
        host, _, port = call.caller.local.rpartition(":")
        if host:
            span.set_attributes({"server.address": host.strip("[]"), "server.port": int(port)})
        return OpenSpan(span, self._parts)

    def shut_down(self) -> None:
        """Send what is left; blocks."""
        self._provider.shutdown()
