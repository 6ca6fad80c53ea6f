"""Counters of calls, plain ints per method; whoever exposes them reads them when asked."""

from __future__ import annotations

from typing import Final

from etcdtw.grpc.call import BIDI_STREAM, SERVER_STREAM, UNARY, Method, MethodTable

CODES_COUNT: Final = 17

KIND_NAMES: Final = {
    UNARY: "unary",
    SERVER_STREAM: "server_stream",
    BIDI_STREAM: "bidi_stream",
}
"""As the label ``grpc_type`` spells them."""


class MethodStats:
    """What happened to the calls of one method, on all connections, since the start.

    ``handled[code]`` counts ended calls; ``started - sum(handled)`` are under way.
    ``*_octets`` count message bodies without prefixes and frames.
    """

    __slots__ = (
        "handled",
        "kind",
        "path",
        "received",
        "received_octets",
        "sent",
        "sent_octets",
        "started",
    )

    def __init__(self, path: str, kind: int) -> None:
        self.path = path
        self.kind = kind
        self.started = 0
        self.handled = [0] * CODES_COUNT
        self.received = 0
        self.received_octets = 0
        self.sent = 0
        self.sent_octets = 0


class ServerStats:
    """The `MethodStats` of a server, shared by all its connections."""

    def __init__(self) -> None:
        self._methods: dict[str, MethodStats] = {}

    def of(self, method: Method) -> MethodStats:
        """Return the counters of ``method``; made on first use, bounded by the method table."""
        stats = self._methods.get(method.path)
        if stats is None:
            stats = self._methods[method.path] = MethodStats(method.path, method.kind)
        return stats

    def prepare(self, methods: MethodTable) -> None:
        """Let every method of the table count from zero, used or not."""
        for path in methods.paths():
            method = methods.find(path.encode())
            assert method is not None
            self.of(method)

    def methods(self) -> list[MethodStats]:
        """Return all counters, in the order of first use."""
        return list(self._methods.values())
