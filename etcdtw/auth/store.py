"""Users and roles of the cluster: replicated state, in memory and in etcd's buckets.

Every method that changes something is one entry of the log, and returns nothing or raises an
`AuthError`, in the order of etcd's checks; the auth revision counts up by one with every change of
a user or a role and when auth is switched off, and with nothing else.

Source: etcd 3.7.3, whose answers are what is followed (tests/differential).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcdtw.auth.errors import (
    AuthFailedError,
    AuthNotEnabledError,
    InvalidManagementError,
    NoPasswordUserError,
    PermissionMissingError,
    PermissionNotGrantedError,
    RoleExistsError,
    RoleNameEmptyError,
    RoleNotFoundError,
    RoleNotGrantedError,
    RootRoleMissingError,
    RootUserMissingError,
    UserExistsError,
    UserNameEmptyError,
    UserNotFoundError,
)
from etcdtw.auth.permission_order import with_appended
from etcdtw.auth.ranges import OPEN_END, is_grantable
from etcdtw.auth.rights import Rights, rights_of
from etcdtw.auth.seams import Buckets, NoTokens, TokenEvents
from etcdtw.auth.switch import Switch
from etcdtw.auth.values import (
    READWRITE,
    ROOT,
    Permission,
    Role,
    User,
    decode_role,
    decode_user,
    encode_role,
    encode_user,
    octets_of,
    text_of,
)

BUCKET_AUTH: Final = b"auth"
BUCKET_USERS: Final = b"authUsers"
BUCKET_ROLES: Final = b"authRoles"

ENABLED_KEY: Final = b"authEnabled"
REVISION_KEY: Final = b"authRevision"

_ENABLED: Final = b"\x01"
_DISABLED: Final = b"\x00"
_ALL_KEYS: Final = (Permission(READWRITE, b"", OPEN_END),)
"""What is told of the role ``root``, whatever was granted to it."""


class AuthStore:
    """Users, roles, and whether they are asked at all.

    Whether they are is in ``switch``, which every request looks at first.
    """

    def __init__(self, buckets: Buckets, tokens: TokenEvents | None = None) -> None:
        self._buckets = buckets
        self._tokens: TokenEvents = NoTokens() if tokens is None else tokens
        self._users: dict[str, User] = {}
        self._roles: dict[str, Role] = {}
        self.epoch = object()
        """Another one whenever somebody's rights may be others."""
        self.known_rights: dict[str, Rights] = {}
        """By user, of the revision of now, as far as somebody has asked."""
        self.on_change: Callable[[], None] | None = None
        """Called when somebody may do less than before, or more."""
        self.switch = Switch()
        self.revision = 0
        self.restore()

    @property
    def is_enabled(self) -> bool:
        """Whether users and roles are asked."""
        return self.switch.is_on

    def restore(self) -> None:
        """Take what the buckets hold (again: a snapshot may have brought others).

        A state that knows nothing of users yet is given revision 1, as real members do.
        """
        buckets = self._buckets
        self.switch.is_on = buckets.bucket_get(BUCKET_AUTH, ENABLED_KEY) == _ENABLED
        self.revision = int.from_bytes(buckets.bucket_get(BUCKET_AUTH, REVISION_KEY) or b"", "big")
        self._users = {text_of(k): decode_user(v) for k, v in buckets.bucket_items(BUCKET_USERS)}
        self._roles = {text_of(k): decode_role(v) for k, v in buckets.bucket_items(BUCKET_ROLES)}
        self.known_rights = {}
        self.epoch = object()
        if self.revision == 0:
            self._changed()
        elif self.on_change is not None:
            self.on_change()

    # What is asked.

    def user(self, name: str) -> User | None:
        """Return a user, or None."""
        return self._users.get(name)

    def user_names(self) -> list[str]:
        """Return the names of all users, in the order of their octets."""
        return sorted(self._users, key=octets_of)

    def user_roles(self, name: str) -> tuple[str, ...]:
        """Return the roles of a user, in order."""
        return self._existing_user(name).roles

    def role_names(self) -> list[str]:
        """Return the names of all roles, in the order of their octets."""
        return sorted(self._roles, key=octets_of)

    def role_permissions(self, name: str) -> tuple[Permission, ...]:
        """Return the permissions of a role, in order."""
        permissions = self._existing_role(name).permissions
        return _ALL_KEYS if name == ROOT else permissions

    def rights(self, name: str) -> Rights | None:
        """Return what a user may do as of the current revision, or None: nobody has this name."""
        found = self.known_rights.get(name)
        if found is None:
            user = self._users.get(name)
            if user is not None:
                found = self.known_rights[name] = rights_of(user, self._roles)
        return found

    # On and off.

    def enable(self) -> None:
        """Ask users and roles from now on.  Doing it twice is nothing."""
        if self.is_enabled:
            return
        root = self._users.get(ROOT)
        if root is None:
            raise RootUserMissingError()
        if ROOT not in root.roles:
            raise RootRoleMissingError()
        self._buckets.bucket_put(BUCKET_AUTH, ENABLED_KEY, _ENABLED)
        self.switch.is_on = True
        if self.on_change is not None:
            self.on_change()

    def disable(self) -> None:
        """Ask nobody any more; all tokens are over.  Doing it twice is nothing."""
        if not self.is_enabled:
            return
        self._buckets.bucket_put(BUCKET_AUTH, ENABLED_KEY, _DISABLED)
        self.switch.is_on = False
        self._changed()
        self._tokens.disabled()

    def authenticate(self, name: str, token: str) -> None:
        """Let ``token`` stand for a user, whose password was checked before it was proposed."""
        if not self.is_enabled:
            raise AuthNotEnabledError()
        user = self._users.get(name)
        if user is None or user.no_password:
            raise AuthFailedError()
        self._tokens.assigned(token, name)

    # Users.

    def check_new_user(self, name: str) -> None:
        """Raise what `add_user` raises for the name."""
        if not name:
            raise UserNameEmptyError()
        if name in self._users:
            raise UserExistsError()

    def add_user(self, name: str, password: bytes | None, *, no_password: bool) -> None:
        """Add a user; ``password`` is its hash, None for one that cannot be read."""
        self.check_new_user(name)
        if no_password:
            password = b""
        elif password is None:
            raise NoPasswordUserError()
        self._put_user(User(name, password, (), True, no_password))
        self._changed()

    def delete_user(self, name: str) -> None:
        """Delete a user; his tokens are over."""
        if self.is_enabled and name == ROOT:
            raise InvalidManagementError()
        self._existing_user(name)
        del self._users[name]
        self._buckets.bucket_delete(BUCKET_USERS, octets_of(name))
        self._changed()
        self._tokens.user_gone(name)

    def change_password(self, name: str, password: bytes | None) -> None:
        """Give a user another password, unless he is one without; his tokens are over."""
        user = self._existing_user(name)
        if user.no_password:
            password = b""
        elif password is None:
            raise NoPasswordUserError()
        self._put_user(user._replace(password=password))
        self._changed()
        self._tokens.user_gone(name)

    def grant_role(self, user_name: str, role_name: str) -> None:
        """Give a user a role; ``root`` needs not exist.  Doing it twice is nothing."""
        user = self._existing_user(user_name)
        if role_name != ROOT:
            self._existing_role(role_name)
        if role_name in user.roles:
            return
        self._put_user(user._replace(roles=tuple(sorted((*user.roles, role_name)))))
        self._changed()

    def revoke_role(self, user_name: str, role_name: str) -> None:
        """Take a role from a user."""
        if self.is_enabled and user_name == ROOT and role_name == ROOT:
            raise InvalidManagementError()
        user = self._existing_user(user_name)
        if role_name not in user.roles:
            raise RoleNotGrantedError()
        self._put_user(_without(user, role_name))
        self._changed()

    # Roles.

    def add_role(self, name: str) -> None:
        """Add a role without permissions."""
        if not name:
            raise RoleNameEmptyError()
        if name in self._roles:
            raise RoleExistsError()
        self._put_role(Role(name))
        self._changed()

    def delete_role(self, name: str) -> None:
        """Delete a role, and take it from all users."""
        if self.is_enabled and name == ROOT:
            raise InvalidManagementError()
        self._existing_role(name)
        del self._roles[name]
        self._buckets.bucket_delete(BUCKET_ROLES, octets_of(name))
        for user in list(self._users.values()):
            if name in user.roles:
                self._put_user(_without(user, name))
        self._changed()

    def grant_permission(self, role_name: str, permission: Permission | None) -> None:
        """Let a role do something with a range; the same range gets the new kind."""
        if permission is None:
            raise PermissionMissingError()
        if not is_grantable(permission.key, permission.range_end):
            raise InvalidManagementError()
        role = self._existing_role(role_name)
        permissions = role.permissions
        # etcd looks at the first permission on this key only, and adds another for the same
        # range when that is not it.
        first = 0
        while first < len(permissions) and permissions[first].key < permission.key:
            first += 1
        if first < len(permissions) and permissions[first][1:] == permission[1:]:
            permissions = (*permissions[:first], permission, *permissions[first + 1 :])
        else:
            permissions = with_appended(permissions, permission)
        self._put_role(role._replace(permissions=permissions))
        self._changed()

    def revoke_permission(self, role_name: str, key: bytes, range_end: bytes) -> None:
        """Take from a role what it may do with exactly this range."""
        role = self._existing_role(role_name)
        kept = tuple(p for p in role.permissions if (p.key, p.range_end) != (key, range_end))
        if len(kept) == len(role.permissions):
            raise PermissionNotGrantedError()
        self._put_role(role._replace(permissions=kept))
        self._changed()

    # Within.

    def _existing_user(self, name: str) -> User:
        user = self._users.get(name)
        if user is None:
            raise UserNotFoundError()
        return user

    def _existing_role(self, name: str) -> Role:
        role = self._roles.get(name)
        if role is None:
            raise RoleNotFoundError()
        return role

    def _put_user(self, user: User) -> None:
        self._users[user.name] = user
        self._buckets.bucket_put(BUCKET_USERS, octets_of(user.name), encode_user(user))

    def _put_role(self, role: Role) -> None:
        self._roles[role.name] = role
        self._buckets.bucket_put(BUCKET_ROLES, octets_of(role.name), encode_role(role))

    def _changed(self) -> None:
        """Count a change; what users may do is worked out anew."""
        self.revision += 1
        self._buckets.bucket_put(BUCKET_AUTH, REVISION_KEY, self.revision.to_bytes(8, "big"))
        self.known_rights = {}
        self.epoch = object()
        if self.on_change is not None:
            self.on_change()


def _without(user: User, role_name: str) -> User:
    return user._replace(roles=tuple(role for role in user.roles if role != role_name))
