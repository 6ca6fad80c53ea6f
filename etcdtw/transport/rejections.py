"""Who was turned away at a port, and why, without filling the log."""

from __future__ import annotations

from typing import Any, Final

from twisted.logger import Logger

REJECTIONS_LOGGED_MAX: Final = 20
"""Lines in `REJECTION_WINDOW_S`: whoever knocks often must not fill the log."""
REJECTION_WINDOW_S: Final = 10.0


class RejectionLog:
    """Says who was turned away, and why, but not too often."""

    log = Logger()

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._message = f"rejected connection on {endpoint} endpoint"
        """etcd's words, and its fields: tools look for them."""
        self._window_ends = 0.0
        self._logged = 0
        self.total = 0

    def rejected(self, remote: str, why: str, now_s: float) -> None:
        self.total += 1
        if now_s >= self._window_ends:
            if self._logged > REJECTIONS_LOGGED_MAX:
                self.log.warn(
                    "rejected {count} more connections on {endpoint} endpoint",
                    count=self._logged - REJECTIONS_LOGGED_MAX,
                    endpoint=self._endpoint,
                )
            self._window_ends = now_s + REJECTION_WINDOW_S
            self._logged = 0
        self._logged += 1
        if self._logged <= REJECTIONS_LOGGED_MAX:
            self.log.warn(
                self._message,
                **{"remote-addr": remote, "error": why},
            )


def remote_text(transport: Any) -> str:
    """Return who is at the other end of ``transport``, for the log."""
    peer = transport.getPeer()
    host = getattr(peer, "host", None)  # a Unix socket has none
    return str(peer) if host is None else f"{host}:{peer.port}"
