"""What one user may do: his roles' permissions together, worked out once for each auth revision."""

from __future__ import annotations

from collections.abc import Mapping

from etcdtw.auth.ranges import Ranges, Span, span_of
from etcdtw.auth.values import READ, READWRITE, ROOT, WRITE, Role, User


class Rights:
    """What one user may do.  ``is_admin``: he has the role ``root``, and may do everything."""

    __slots__ = ("is_admin", "read", "write")

    def __init__(self, is_admin: bool, read: Ranges, write: Ranges) -> None:
        self.is_admin = is_admin
        self.read = read
        self.write = write


def rights_of(user: User, roles: Mapping[str, Role]) -> Rights:
    """Return what ``user`` may do; roles that do not exist give nothing."""
    read: list[Span] = []
    write: list[Span] = []
    for name in user.roles:
        role = roles.get(name)
        if role is None:
            continue
        for kind, key, range_end in role.permissions:
            span = span_of(key, range_end)
            if kind in (READ, READWRITE):
                read.append(span)
            if kind in (WRITE, READWRITE):
                write.append(span)
    return Rights(ROOT in user.roles, Ranges(read), Ranges(write))
