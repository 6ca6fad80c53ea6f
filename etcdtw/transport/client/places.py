"""How many clients a member serves at once, over all its ports.

A process has only so many file descriptors; who takes the last one takes it from the log.
"""

from __future__ import annotations

from typing import Final, Protocol

CLIENTS_MAX: Final = 10_000


class Client(Protocol):
    """A connection that holds a place."""

    def drop(self) -> None: ...


class ClientPlaces:
    """The places of all client ports.  When none is left a newcomer takes that of the client
    which has been silent longest since it came; those who have spoken keep theirs."""

    def __init__(self, count_max: int = CLIENTS_MAX) -> None:
        self.count_max = count_max
        self.evicted = 0
        self._held: set[Client] = set()
        self._silent: dict[Client, None] = {}

    def take(self, client: Client) -> bool:
        """Give ``client`` a place; False: there is none."""
        if len(self._held) >= self.count_max:
            if not self._silent:
                return False
            silent = next(iter(self._silent))
            self.leave(silent)
            self.evicted += 1
            silent.drop()
        self._held.add(client)
        self._silent[client] = None
        return True

    def spoke(self, client: Client) -> None:
        """``client`` speaks a protocol that is served here."""
        self._silent.pop(client, None)

    def leave(self, client: Client) -> None:
        """``client`` is gone.  Says nothing when it has no place."""
        self._silent.pop(client, None)
        self._held.discard(client)
