"""etcd's Watch service: a gRPC stream's requests to its `WatchStream`, responses back.

What a watch is told is decided in `mvcc.watch.hub`; here are the wire's rules: decoding, the
pause of a stream whose output is blocked, the bounds, and ``hasleader``.

Source: etcd v3 api, Watch.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from google.protobuf.message import DecodeError
from twisted.internet.interfaces import IReactorTime

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
from etcdtw.wire.entry_header import Asker
from etcdtw.wire.etcdserverpb import WatchCreateRequest, WatchRequest

LOOKS_MAX: Final = 500
"""Watches looked at in one go when users or roles have changed: a millisecond or two."""
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
    """Opens watch streams.

    guard    None: everybody may watch everything
    rights   sees to it that watches end with the right to them; None: they go on
    """

    def __init__(
        self,
        node: Facade,
        election_timeout_s: float,
        guard: Guard | None = None,
        rights: WatchRights | None = None,
    ) -> None:
        self._rights = rights
        self._node = node
        self._guard = guard
        self._leader_loss = LeaderLoss(node, election_timeout_s)

    def register(self, methods: MethodTable) -> None:
        """Add this service's method."""
        methods.add_bidi_stream("/etcdserverpb.Watch/Watch", self.opened)

    def opened(self, call: Call) -> None:
        """Serve one stream.  That the client sends no more does not end it."""
        _WatchCall(call, self._node, self._leader_loss, self._guard, self._rights)


class _WatchCall:
    """One gRPC stream and its `WatchStream`."""

    def __init__(
        self,
        call: Call,
        node: Facade,
        leader_loss: LeaderLoss,
        guard: Guard | None,
        rights: WatchRights | None,
    ) -> None:
        self._call = call
        self._guard = guard
        self._rights = rights
        # On whose behalf the last watch was created; None: nobody was asked then.
        self._user: str | None = None
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
        if rights is not None:
            rights.opened(self)

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
        if guard is None or not guard.switch.is_on or request.start_revision < 0:
            return ""
        asker = guard.identify(self._call.caller)
        if isinstance(asker, Exception):
            return go_text(asker)
        refusal = guard.watch_refusal(asker, request.key or b"\0", request.range_end)
        if refusal is not None:
            return go_text(refusal)
        self._user = asker.user
        return ""

    # What is left of the right to a watch (`WatchRights`).

    @property
    def watch_ids(self) -> list[int]:
        """The watches there are now."""
        return list(self._stream.watchers)

    def look(self, watch_id: int) -> None:
        """Cancel a watch that its caller may not have any more.

        His token may be over by now: it counts who he was when he created the last one.
        """
        guard, watcher = self._guard, self._stream.watchers.get(watch_id)
        if guard is None or watcher is None or not guard.switch.is_on:
            return
        asker: Asker | Exception
        if self._user is None:
            asker = guard.identify(self._call.caller)
        else:
            asker = Asker(self._user, guard.revision)
        refusal: Exception | None
        if isinstance(asker, Exception):
            refusal = asker
        else:
            refusal = guard.watch_refusal(asker, watcher.key, watcher.range_end)
        if refusal is not None:
            self._stream.cancel(watch_id, go_text(refusal))

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
        if self._rights is not None:
            self._rights.closed(self)
        self._stream.close()


class WatchRights:
    """Looks at all watches, step by step, when users or roles have changed.  One per member."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._calls: dict[_WatchCall, None] = {}
        self._due: deque[tuple[_WatchCall, list[int]]] = deque()
        self._is_looking = False
        self._has_changed = False

    def opened(self, call: _WatchCall) -> None:
        """Look at this one's watches, too."""
        self._calls[call] = None

    def closed(self, call: _WatchCall) -> None:
        """Nothing is left to look at."""
        self._calls.pop(call, None)

    def changed(self) -> None:
        """Users or roles have changed; what is applied goes on first."""
        self._has_changed = True
        if not self._is_looking:
            self._is_looking = True
            self._clock.callLater(0, self._step)

    def _step(self) -> None:
        if self._has_changed:
            # From the beginning: what was looked at was looked at under another revision.
            self._has_changed = False
            self._due = deque((call, call.watch_ids) for call in self._calls)
        left = LOOKS_MAX
        while self._due and left > 0:
            call, watch_ids = self._due[0]
            some = watch_ids[-left:] if call in self._calls else []
            if not some:
                self._due.popleft()
                left -= 1
                continue
            del watch_ids[-len(some) :]
            left -= len(some)
            for watch_id in some:
                call.look(watch_id)
        if self._due or self._has_changed:
            self._clock.callLater(0, self._step)
        else:
            self._is_looking = False
