"""The seam between applying and users and roles: may who asked have what an entry does?"""

from __future__ import annotations

from typing import Any, Protocol

from etcdtw.wire.entry_header import Asker


class Permissions(Protocol):
    """A part of the replicated state: every member gives the same answer at the same entry."""

    @property
    def is_asking(self) -> bool:
        """Whether anybody may be refused; looked at for each entry, before who asked is read."""
        ...

    def refusal(self, asker: Asker, field: int, request: Any) -> Exception | None:
        """Return why ``asker`` is refused a request of InternalRaftRequest's ``field``, if so."""
        ...
