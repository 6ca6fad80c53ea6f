"""The way to the leader of the moment, for what only a leader can answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Answered = Callable[[int, bytes], None]
"""HTTP status and body; status 0: no leader has answered in time."""


class LeaderLine(Protocol):
    """Implemented by `server.member.leader_line`."""

    def ask_leader(self, path: str, body: bytes, answered: Answered) -> None:
        """POST ``body`` to the leader's ``path``, again while there is no answer."""
        ...
