"""The seam between applying and users and roles: may who asked have what an entry does?"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

from etcdtw.auth.switch import Switch
from etcdtw.wire.entry_header import Asker


class LongCheckError(Exception):
    """The answer takes long.  Nothing was changed; it is there when ``steps`` are taken.

    Everything before the entry must be durable then.
    """

    def __init__(self, steps: Generator[None, None, None]) -> None:
        super().__init__("an entry touches a lease with very many keys")
        self.steps = steps


class Permissions(Protocol):
    """A part of the replicated state: every member gives the same answer at the same entry."""

    @property
    def switch(self) -> Switch:
        """Whether anybody may be refused; looked at for each entry, before who asked is read."""
        ...

    def refusal(self, asker: Asker, field: int, request: Any) -> Exception | None:
        """Return why ``asker`` is refused a request of InternalRaftRequest's ``field``, if so.

        Raises `LongCheckError`.
        """
        ...

    def checked(self) -> None:
        """The entry whose check took steps is about to be applied or refused."""
        ...
