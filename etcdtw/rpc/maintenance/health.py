"""The gRPC health service: one service name, the empty one, as etcd registers it.

Source: the gRPC health checking protocol; ``grpc.health.v1.Health``.
"""

from __future__ import annotations

from etcdtw.grpc.call import NOT_FOUND, Call, MethodTable, StatusError
from etcdtw.rpc.decode import decode
from etcdtw.wire import healthpb as pb

SERVICE = ""


class HealthService:
    """Answers SERVING for the server as a whole."""

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
        return _SERVING.SerializeToString()

    def list_services(self, call: Call, message: bytes) -> bytes:
        """Return the status of every service name."""
        decode(pb.HealthListRequest, message)
        response = pb.HealthListResponse()
        response.statuses[SERVICE].CopyFrom(_SERVING)
        return response.SerializeToString()

    def watch(self, call: Call) -> None:
        """Send the status once; it changes only when the server ends, and then the stream does."""

        def on_message(message: bytes) -> None:
            known = decode(pb.HealthCheckRequest, message).service == SERVICE
            call.send((_SERVING if known else _UNKNOWN).SerializeToString())

        call.on_message = on_message


_SERVING = pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVING)
_UNKNOWN = pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)
