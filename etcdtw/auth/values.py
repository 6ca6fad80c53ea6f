"""Users, roles and permissions as values, and their rows in etcd's buckets.

Source: etcd's ``authpb``; a row's key is the name.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from etcdtw.wire import authpb

READ: Final = 0
WRITE: Final = 1
READWRITE: Final = 2

ROOT: Final = "root"
"""The name of the user and of the role that may do everything."""


class Permission(NamedTuple):
    """What a role may do with a range of keys; ``kind`` may be one of a newer version."""

    kind: int
    key: bytes
    range_end: bytes


class Role(NamedTuple):
    """A role.  ``permissions`` are in the order of their keys."""

    name: str
    permissions: tuple[Permission, ...] = ()


class User(NamedTuple):
    """A user.

    password       its bcrypt hash; empty: none
    roles          in order
    has_options    False for users of versions that had none
    no_password    he is known by his certificate only
    """

    name: str
    password: bytes = b""
    roles: tuple[str, ...] = ()
    has_options: bool = True
    no_password: bool = False


def octets_of(name: str) -> bytes:
    """Return a name as it is stored.  What is no text goes through unchanged."""
    return name.encode(errors="surrogateescape")


def text_of(name: bytes) -> str:
    """Return a name from where it is stored."""
    return name.decode(errors="surrogateescape")


def encode_user(user: User) -> bytes:
    """Return a user's row."""
    options = None
    if user.has_options:
        # Present and empty, as etcd writes it.
        options = authpb.UserAddOptions(no_password=user.no_password)
    return authpb.User(
        name=octets_of(user.name), password=user.password, roles=user.roles, options=options
    ).SerializeToString()


def decode_user(row: bytes) -> User:
    """Return the user of a row."""
    message = authpb.User.FromString(row)
    return User(
        text_of(message.name),
        message.password,
        tuple(message.roles),
        message.HasField("options"),
        message.options.no_password,
    )


def encode_role(role: Role) -> bytes:
    """Return a role's row."""
    return authpb.Role(
        name=octets_of(role.name), keyPermission=permission_messages(role.permissions)
    ).SerializeToString()


def permission_messages(permissions: tuple[Permission, ...]) -> list[Any]:
    """Return permissions as protobuf's messages."""
    return [
        authpb.Permission(permType=kind, key=key, range_end=range_end)
        for kind, key, range_end in permissions
    ]


def decode_role(row: bytes) -> Role:
    """Return the role of a row."""
    message = authpb.Role.FromString(row)
    return Role(
        text_of(message.name),
        tuple(Permission(p.permType, p.key, p.range_end) for p in message.keyPermission),
    )
