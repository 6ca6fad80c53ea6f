"""etcd's Watch service: a gRPC stream's requests to its `WatchStream`, responses back.

What a watch is told is decided in `mvcc.watch.hub`; here are the wire's rules: decoding, the
pause of a stream whose output is blocked, the bounds, and ``hasleader``.

Source: etcd v3 api, Watch.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from etcdtw.grpc.call import (
    INTERNAL,
    RESOURCE_EXHAUSTED,
    Call,
    KeepsOctets,
    MethodTable,
    SendsInParts,
    SendsMany,
)
from etcdtw.node.facade import Facade
from etcdtw.rpc.decode import MALFORMED_MESSAGE
from etcdtw.rpc.errors import go_text
from etcdtw.rpc.guard import Guard
from etcdtw.rpc.leader_loss import LeaderLoss
from etcdtw.wire.etcdserverpb import WatchCreateRequest, WatchRequest

OUTPUT_BYTES_MAX: Final = 256 * 1024
"""Octets waiting for the client above which its watchers are paused."""
REQUESTS_WHILE_PAUSED_MAX: Final = 100_000
"""Requests taken from a client that reads no answers; about 6 MB of responses."""
TOO_MANY_REQUESTS: Final = (
    f"etcdtw: {REQUESTS_WHILE_PAUSED_MAX} watch requests without reading a response; "
    "read the stream while writing to it"
)
TOO_LONG_KEYS: Final = (
    "etcdtw: the keys that are watched hold too many octets; watch fewer, shorter ones"
)


class WatchService:
    """Opens watch streams.  ``guard`` None: everybody may watch everything."""

    def __init__(self, node: Facade, election_timeout_s: float, guard: Guard | None = None) -> None:
        self._node = node
        self._guard = guard
        self._leader_loss = LeaderLoss(node, election_timeout_s)

    def register(self, methods: MethodTable) -> None:
        """Add this service's method."""
        methods.add_bidi_stream("/etcdserverpb.Watch/Watch", self.opened)

    def opened(self, call: Call) -> None:
        """Serve one stream.  That the client sends no more does not end it."""
        _WatchCall(call, self._node, self._leader_loss, self._guard)


class _WatchCall:
    """One gRPC stream and its `WatchStream`."""

    def __init__(
        self, call: Call, node: Facade, leader_loss: LeaderLoss, guard: Guard | None
    ) -> None:
        self._call = call
        self._guard = guard
        # Of a fan-out, the watchers of one stream share a call into the layers below.
        self._send_all = call.send_all if isinstance(call, SendsMany) else self._send_each
        self._keep = call.keep if isinstance(call, KeepsOctets) else None
        self._leader_loss = leader_loss
        self._requests_while_paused = 0
        if not leader_loss.admit(call, self._close):
            return
        send_parts = self._send_parts if isinstance(call, SendsInParts) else None
        self._stream = node.hub.open(self._send, node.now_ms, send_parts)
        call.on_message = self._receive
        call.on_drain = self._drained
        call.on_end = self._ended

    def _receive(self, message: bytes) -> None:
        try:
            request = WatchRequest.FromString(message)
        except DecodeError:
            self._fail(INTERNAL, MALFORMED_MESSAGE)
            return
        stream = self._stream
        if stream.is_paused:
            self._requests_while_paused += 1
            if self._requests_while_paused > REQUESTS_WHILE_PAUSED_MAX:
                self._fail(RESOURCE_EXHAUSTED, TOO_MANY_REQUESTS)
                return
        kind = request.WhichOneof("request_union")
        if kind == "create_request":
            refusal = self._refusal(request.create_request)
            if refusal:
                stream.refuse(refusal)
                return
            stream.create(request.create_request)
            if self._keep is not None and not self._keep(stream.keys_size):
                self._fail(RESOURCE_EXHAUSTED, TOO_LONG_KEYS)
        elif kind == "cancel_request":
            stream.cancel(request.cancel_request.watch_id)
            if self._keep is not None:
                self._keep(stream.keys_size)
        elif kind == "progress_request":
            stream.request_progress()
        # An empty union is ignored, as etcd does.

    def _refusal(self, request: WatchCreateRequest) -> str:
        """Return why the caller may not watch this, in etcd's words; empty: he may.

        He is asked about the range that he named, before any form of it is taken for another
        (GHSA-xg4h-6gfc-h4m8).
        """
        guard = self._guard
        if guard is None or not guard.is_asking or request.start_revision < 0:
            return ""
        refusal = guard.watch_refusal(self._call.caller, request.key or b"\0", request.range_end)
        return "" if refusal is None else go_text(refusal)

    def _send(self, responses: list[bytes]) -> bool:
        self._send_all(responses)
        return self._call.queued > OUTPUT_BYTES_MAX

    def _send_parts(self, parts: list[bytes]) -> bool:
        assert isinstance(self._call, SendsInParts), "the same call as before"
        self._call.send_parts(parts)
        return self._call.queued > OUTPUT_BYTES_MAX

    def _send_each(self, responses: list[bytes]) -> None:
        for response in responses:
            self._call.send(response)

    def _drained(self) -> None:
        self._requests_while_paused = 0
        self._stream.resume()

    def _fail(self, code: int, message: str) -> None:
        self._call.fail(code, message)
        self._ended()

    def _ended(self) -> None:
        self._leader_loss.forget(self._call)
        self._close()

    def _close(self) -> None:
        self._stream.close()
