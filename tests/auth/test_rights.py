"""A user's roles together."""

from __future__ import annotations

from etcdtw.auth.rights import rights_of
from etcdtw.auth.values import READ, READWRITE, WRITE, Permission, Role, User

ROLES = {
    "reads": Role("reads", (Permission(READ, b"a", b"c"), Permission(9, b"z", b""))),
    "writes": Role("writes", (Permission(WRITE, b"b", b"d"),)),
    "both": Role("both", (Permission(READWRITE, b"d", b"\0"),)),
}


def test_permissions_of_several_roles_join() -> None:
    rights = rights_of(User("u", roles=("both", "gone", "reads", "writes")), ROLES)
    assert rights.read.merged == [(b"a", b"c"), (b"d", None)]
    assert rights.write.merged == [(b"b", None)]
    assert not rights.is_admin


def test_the_role_root_needs_not_exist() -> None:
    assert rights_of(User("u", roles=("root",)), ROLES).is_admin
