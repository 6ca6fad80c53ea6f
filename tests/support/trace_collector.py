"""A collector of traces for tests: OTLP over gRPC, kept as plain values."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

METHOD = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass(frozen=True)
class Span:
    """One span as it was exported."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    status: tuple[int, str]
    scope: str
    resource: dict[str, Any]
    start_ns: int
    end_ns: int


@dataclass
class Collector:
    """Takes spans at ``address``."""

    address: str
    spans: list[Span] = field(default_factory=list)
    _arrived: threading.Condition = field(default_factory=threading.Condition)

    def export(self, request: ExportTraceServiceRequest, _: Any) -> ExportTraceServiceResponse:
        """Keep what came."""
        with self._arrived:
            for of_resource in request.resource_spans:
                resource = _plain(of_resource.resource.attributes)
                for of_scope in of_resource.scope_spans:
                    for span in of_scope.spans:
                        self.spans.append(_span(span, of_scope.scope.name, resource))
            self._arrived.notify_all()
        return ExportTraceServiceResponse()

    def wait(self, count: int, timeout_s: float = 20.0) -> list[Span]:
        """Return all spans once there are ``count`` of them."""
        with self._arrived:
            found = self._arrived.wait_for(lambda: len(self.spans) >= count, timeout_s)
            assert found, f"{len(self.spans)} of {count}: {[span.name for span in self.spans]}"
            return list(self.spans)


class collecting:  # noqa: N801  # reads as what it does
    """A collector that listens while the block runs."""

    def __init__(self, port: int) -> None:
        self._server = grpc.server(ThreadPoolExecutor(2))
        self._collector = Collector(f"127.0.0.1:{port}")
        handler = grpc.unary_unary_rpc_method_handler(
            self._collector.export,
            request_deserializer=ExportTraceServiceRequest.FromString,
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )
        service = grpc.method_handlers_generic_handler(METHOD, {"Export": handler})
        self._server.add_generic_rpc_handlers((service,))
        self._server.add_insecure_port(self._collector.address)

    def __enter__(self) -> Collector:
        self._server.start()
        return self._collector

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()


def _span(span: Any, scope: str, resource: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_plain(span.attributes),
        status=(span.status.code, span.status.message),
        scope=scope,
        resource=resource,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
