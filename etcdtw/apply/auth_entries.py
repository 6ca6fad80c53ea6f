"""What entries do to users and roles.

A password comes hashed by the member that proposed it.  Entries of 3.4 hold it in plain text, and
every real member hashes that with a salt of its own; here the salt follows from the entry, and the
hashing is a long entry, done elsewhere while nothing else is applied.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as EncodingError
from collections.abc import Callable, Generator
from hashlib import sha256
from typing import Any, Final, Protocol

from etcdtw.apply.entries import UnknownEntryError
from etcdtw.auth.errors import AuthError
from etcdtw.auth.store import AuthStore
from etcdtw.auth.tokens import token_text
from etcdtw.auth.values import Permission, octets_of
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.long_entry import LongEntryError, Wait
from etcdtw.mvcc.store import Store
from etcdtw.wire import etcdserverpb as pb

FIELD_AUTH_ENABLE: Final = 1000
FIELD_AUTH_DISABLE: Final = 1011
FIELD_AUTHENTICATE: Final = 1012
FIELD_USER_ADD: Final = 1100
FIELD_USER_DELETE: Final = 1101
FIELD_USER_CHANGE_PASSWORD: Final = 1103
FIELD_USER_GRANT_ROLE: Final = 1104
FIELD_USER_REVOKE_ROLE: Final = 1105
FIELD_ROLE_ADD: Final = 1200
FIELD_ROLE_DELETE: Final = 1201
FIELD_ROLE_GRANT_PERMISSION: Final = 1203
FIELD_ROLE_REVOKE_PERMISSION: Final = 1204

NAMES: Final = {
    FIELD_AUTH_ENABLE: "auth_enable",
    FIELD_AUTH_DISABLE: "auth_disable",
    FIELD_AUTHENTICATE: "authenticate",
    FIELD_USER_ADD: "auth_user_add",
    FIELD_USER_DELETE: "auth_user_delete",
    FIELD_USER_CHANGE_PASSWORD: "auth_user_change_password",
    FIELD_USER_GRANT_ROLE: "auth_user_grant_role",
    FIELD_USER_REVOKE_ROLE: "auth_user_revoke_role",
    FIELD_ROLE_ADD: "auth_role_add",
    FIELD_ROLE_DELETE: "auth_role_delete",
    FIELD_ROLE_GRANT_PERMISSION: "auth_role_grant_permission",
    FIELD_ROLE_REVOKE_PERMISSION: "auth_role_revoke_permission",
}

PARSERS: Final[dict[int, Callable[[bytes], Any]]] = {
    FIELD_AUTH_ENABLE: pb.AuthEnableRequest.FromString,
    FIELD_AUTH_DISABLE: pb.AuthDisableRequest.FromString,
    FIELD_AUTHENTICATE: pb.InternalAuthenticateRequest.FromString,
    FIELD_USER_ADD: pb.AuthUserAddRequest.FromString,
    FIELD_USER_DELETE: pb.AuthUserDeleteRequest.FromString,
    FIELD_USER_CHANGE_PASSWORD: pb.AuthUserChangePasswordRequest.FromString,
    FIELD_USER_GRANT_ROLE: pb.AuthUserGrantRoleRequest.FromString,
    FIELD_USER_REVOKE_ROLE: pb.AuthUserRevokeRoleRequest.FromString,
    FIELD_ROLE_ADD: pb.AuthRoleAddRequest.FromString,
    FIELD_ROLE_DELETE: pb.AuthRoleDeleteRequest.FromString,
    FIELD_ROLE_GRANT_PERMISSION: pb.AuthRoleGrantPermissionRequest.FromString,
    FIELD_ROLE_REVOKE_PERMISSION: pb.AuthRoleRevokePermissionRequest.FromString,
}

MANAGING: Final = frozenset(PARSERS) - {FIELD_AUTHENTICATE}
"""What only users with the role ``root`` may have done."""

VERSION_OF_OWN_INDEX: Final = "3.4."
NAME_SIZE_MAX: Final = 511
"""Octets of the name of a user or a role: what a key of the state's buckets may have."""
PASSWORD_MAX: Final = 72
"""Octets of a password that bcrypt looks at; Go's refuses longer ones."""
SALT_SIZE: Final = 16


class PendingHash(Protocol):
    """A password that is being hashed."""

    def take(self) -> bytes | None:
        """Return the hash, None while it is being made."""
        ...

    def when_done(self, resume: Callable[[], None]) -> None: ...


StartHash = Callable[[bytes, bytes], PendingHash]
"""Begins to hash a password with a salt."""


class AuthEntries:
    """Applies what changes users and roles.

    index            of the entry that is being applied; whoever applies sets it
    cluster_version  returns the cluster's, as text
    """

    def __init__(
        self,
        auth: AuthStore,
        store: Store,
        cluster_id: int,
        cluster_version: Callable[[], str],
        start_hash: StartHash,
    ) -> None:
        self._auth = auth
        self._store = store
        self._cluster_id = cluster_id
        self._cluster_version = cluster_version
        self._start_hash = start_hash
        self.index = 0
        self.deeds: dict[int, Callable[[Any], Applied]] = {
            FIELD_AUTH_ENABLE: self._enable,
            FIELD_AUTH_DISABLE: self._disable,
            FIELD_AUTHENTICATE: self._authenticate,
            FIELD_USER_ADD: self._user_add,
            FIELD_USER_DELETE: self._user_delete,
            FIELD_USER_CHANGE_PASSWORD: self._user_change_password,
            FIELD_USER_GRANT_ROLE: self._user_grant_role,
            FIELD_USER_REVOKE_ROLE: self._user_revoke_role,
            FIELD_ROLE_ADD: self._role_add,
            FIELD_ROLE_DELETE: self._role_delete,
            FIELD_ROLE_GRANT_PERMISSION: self._role_grant_permission,
            FIELD_ROLE_REVOKE_PERMISSION: self._role_revoke_permission,
        }
        """By field of InternalRaftRequest."""

    def restore(self) -> None:
        """Take users and roles from the buckets: at boot, and after a snapshot."""
        self._auth.restore()

    def _outcome(self, error: AuthError | None = None, body: bytes = b"") -> Applied:
        return Applied(self._store.revision, body, error)

    def _enable(self, request: pb.AuthEnableRequest) -> Applied:
        try:
            self._auth.enable()
        except AuthError as error:
            return self._outcome(error)
        return self._outcome()

    def _disable(self, request: pb.AuthDisableRequest) -> Applied:
        self._auth.disable()
        return self._outcome()

    def _authenticate(self, request: pb.InternalAuthenticateRequest) -> Applied:
        # The token must be the same on all: since 3.5 members take the index before this one.
        is_old = self._cluster_version().startswith(VERSION_OF_OWN_INDEX)
        token = token_text(request.simple_token, self.index if is_old else self.index - 1)
        try:
            self._auth.authenticate(request.name, token)
        except AuthError as error:
            return self._outcome(error)
        return self._outcome(None, pb.AuthenticateResponse(token=token).SerializeToString())

    # Users.

    def _user_add(self, request: pb.AuthUserAddRequest) -> Applied:
        _check_name(request.name)
        no_password = request.options.no_password
        if _is_plain(request) and not no_password:
            try:
                self._auth.check_new_user(request.name)
            except AuthError as error:
                return self._outcome(error)
            raise LongEntryError(self._hash_first(request, self._user_add))
        try:
            self._auth.add_user(request.name, _password(request), no_password=no_password)
        except AuthError as error:
            return self._outcome(error)
        return self._outcome()

    def _user_delete(self, request: pb.AuthUserDeleteRequest) -> Applied:
        try:
            self._auth.delete_user(request.name)
        except AuthError as error:
            return self._outcome(error)
        return self._outcome()

    def _user_change_password(self, request: pb.AuthUserChangePasswordRequest) -> Applied:
        user = self._auth.user(request.name)
        if user is not None and _is_plain(request) and not user.no_password:
            raise LongEntryError(self._hash_first(request, self._user_change_password))
        try:
            self._auth.change_password(request.name, _password(request))
        except AuthError as error:
            return self._outcome(error)
        return self._outcome()

    def _hash_first(
        self, request: Any, apply: Callable[[Any], Applied]
    ) -> Generator[Wait | None, None, Applied]:
        name = octets_of(request.name)
        pending = self._start_hash(request.password.encode(), self._salt(name))
        found = pending.take()
        while found is None:
            yield pending.when_done
            found = pending.take()
        hashed = type(request)()
        hashed.CopyFrom(request)
        hashed.password = ""
        hashed.hashedPassword = _encoded(found)
        return apply(hashed)

    def _salt(self, name: bytes) -> bytes:
        """Return the salt that all members of ours take for this entry."""
        octets = b"%016x %d " % (self._cluster_id, self.index)
        return sha256(octets + name).digest()[:SALT_SIZE]

    def _user_grant_role(self, request: pb.AuthUserGrantRoleRequest) -> Applied:
        try:
            self._auth.grant_role(request.user, request.role)
        except AuthError as error:
            return self._outcome(error)
        return self._outcome()

    def _user_revoke_role(self, request: pb.AuthUserRevokeRoleRequest) -> Applied:
        try:
            self._auth.revoke_role(request.name, request.role)
        except AuthError as error:
            return self._outcome(error)
        return self._outcome()

    # Roles.

    def _role_add(self, request: pb.AuthRoleAddRequest) -> Applied:
        _check_name(request.name)
        try:
            self._auth.add_role(request.name)
        except AuthError as error:
            return self._outcome(error)
        return self._outcome()

    def _role_delete(self, request: pb.AuthRoleDeleteRequest) -> Applied:
        try:
            self._auth.delete_role(request.role)
        except AuthError as error:
            return self._outcome(error)
        return self._outcome()

    def _role_grant_permission(self, request: pb.AuthRoleGrantPermissionRequest) -> Applied:
        permission = None
        if request.HasField("perm"):
            perm = request.perm
            permission = Permission(perm.permType, perm.key, perm.range_end)
        try:
            self._auth.grant_permission(request.name, permission)
        except AuthError as error:
            return self._outcome(error)
        return self._outcome()

    def _role_revoke_permission(self, request: pb.AuthRoleRevokePermissionRequest) -> Applied:
        try:
            self._auth.revoke_permission(request.role, request.key, request.range_end)
        except AuthError as error:
            return self._outcome(error)
        return self._outcome()


def _is_plain(request: Any) -> bool:
    """Whether a password is still to be hashed.  Too long a one is none, as on real members."""
    password = request.password
    return bool(password and not request.hashedPassword) and len(password.encode()) <= PASSWORD_MAX


def _password(request: Any) -> bytes | None:
    """Return the hash in a request, None for one that cannot be read."""
    if request.password and not request.hashedPassword:
        return None
    text = request.hashedPassword.replace("\r", "").replace("\n", "")
    try:
        return b64decode(text, validate=True)
    except (EncodingError, ValueError):
        return None


def _encoded(password_hash: bytes) -> str:
    return b64encode(password_hash).decode()


def _check_name(name: str) -> None:
    """Stop at a name that this member cannot store: without it, it would judge otherwise."""
    if len(octets_of(name)) > NAME_SIZE_MAX:
        raise UnknownEntryError(
            f"a committed entry adds a user or a role whose name has more than {NAME_SIZE_MAX} "
            "octets, which this member cannot store; delete it through another member, and let "
            "this one join anew"
        )
