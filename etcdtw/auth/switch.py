"""Whether users and roles are asked at all: each request and each entry looks at it first."""

from __future__ import annotations


class Switch:
    """One for a member.  Whoever looks keeps it, so that a look costs an attribute of it."""

    def __init__(self, is_on: bool = False) -> None:
        self.is_on = is_on
