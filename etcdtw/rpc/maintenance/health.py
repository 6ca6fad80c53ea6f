"""The gRPC health service: one service name, the empty one, as etcd registers it.

Source: the gRPC health checking protocol; ``grpc.health.v1.Health``.
"""

from __future__ import annotations

from functools import partial

from etcdtw.grpc.call import NOT_FOUND, Call, MethodTable, StatusError
from etcdtw.rpc.decode import decode
from etcdtw.wire import healthpb as pb

SERVICE = ""


class HealthService:
    """Answers SERVING for the server as a whole, unless it is told otherwise."""

    def __init__(self) -> None:
        self._is_serving = True
        self._watches: dict[Call, None] = {}

    def set_serving(self, is_serving: bool) -> None:
        """Say so from now on; whoever watches is told of a change."""
        if is_serving == self._is_serving:
            return
        self._is_serving = is_serving
        for call in list(self._watches):
            call.send(self._status().SerializeToString())

    def _status(self) -> pb.HealthCheckResponse:
        return _SERVING if self._is_serving else _NOT_SERVING

    def register(self, methods: MethodTable) -> None:
        """Add this service's methods."""
        methods.add_unary("/grpc.health.v1.Health/Check", self.check)
        methods.add_unary("/grpc.health.v1.Health/List", self.list_services)
        methods.add_server_stream("/grpc.health.v1.Health/Watch", self.watch)

    def check(self, call: Call, message: bytes) -> bytes:
        """Return the status of one service name; an unknown one is NOT_FOUND."""
        request = decode(pb.HealthCheckRequest, message)
        if request.service != SERVICE:
            raise StatusError(NOT_FOUND, "unknown service")
        return self._status().SerializeToString()

    def list_services(self, call: Call, message: bytes) -> bytes:
        """Return the status of every service name."""
        decode(pb.HealthListRequest, message)
        response = pb.HealthListResponse()
        response.statuses[SERVICE].CopyFrom(self._status())
        return response.SerializeToString()

    def watch(self, call: Call) -> None:
        """Send the status, and again when it changes."""

        def on_message(message: bytes) -> None:
            known = decode(pb.HealthCheckRequest, message).service == SERVICE
            call.send((self._status() if known else _UNKNOWN).SerializeToString())
            if known and call.is_open:
                self._watches[call] = None
                call.on_end = partial(self._forget, call)

        call.on_message = on_message

    def _forget(self, call: Call) -> None:
        self._watches.pop(call, None)


_SERVING = pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVING)
_NOT_SERVING = pb.HealthCheckResponse(status=pb.HealthCheckResponse.NOT_SERVING)
_UNKNOWN = pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)
