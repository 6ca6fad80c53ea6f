"""etcd's Auth service: changes by consensus, questions by linearizable reads.

A password is hashed before it is proposed, and dropped at once: no entry, log line or error holds
it.  Real members put questions into the log as well; here nobody's question costs an entry.

Source: etcd v3 api, Auth; 3.7.3 where they differ.  Error texts are in `rpc.errors`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from etcdtw.apply import auth_entries as fields
from etcdtw.apply.auth_entries import NAME_SIZE_MAX
from etcdtw.apply.errors import TooManyRequestsError
from etcdtw.auth.errors import AuthError
from etcdtw.auth.values import octets_of, permission_messages
from etcdtw.grpc.call import INVALID_ARGUMENT, Call, MethodTable
from etcdtw.node.facade import Facade
from etcdtw.node.intake.requests import Done
from etcdtw.rpc.answers import answer_applied
from etcdtw.rpc.auth.authentication import Authentication
from etcdtw.rpc.auth.passwords import PASSWORD_SIZE_MAX, Passwords, PasswordTooLongError
from etcdtw.rpc.decode import decode, decode_entry
from etcdtw.rpc.errors import fail
from etcdtw.rpc.guard import Guard
from etcdtw.wire import etcdserverpb as pb

PREFIX: Final = "/etcdserverpb.Auth/"
TOO_LONG_NAME: Final = f"etcdtw: the name of a user or a role has at most {NAME_SIZE_MAX} octets"

_PROPOSED: Final = {
    "AuthEnable": (fields.FIELD_AUTH_ENABLE, pb.AuthEnableRequest),
    "AuthDisable": (fields.FIELD_AUTH_DISABLE, pb.AuthDisableRequest),
    "UserDelete": (fields.FIELD_USER_DELETE, pb.AuthUserDeleteRequest),
    "UserGrantRole": (fields.FIELD_USER_GRANT_ROLE, pb.AuthUserGrantRoleRequest),
    "UserRevokeRole": (fields.FIELD_USER_REVOKE_ROLE, pb.AuthUserRevokeRoleRequest),
    "RoleDelete": (fields.FIELD_ROLE_DELETE, pb.AuthRoleDeleteRequest),
    "RoleGrantPermission": (
        fields.FIELD_ROLE_GRANT_PERMISSION,
        pb.AuthRoleGrantPermissionRequest,
    ),
    "RoleRevokePermission": (
        fields.FIELD_ROLE_REVOKE_PERMISSION,
        pb.AuthRoleRevokePermissionRequest,
    ),
}
"""What is proposed as it comes."""


class AuthService:
    """The 17 methods of one member.  ``authentication``: what hands out tokens."""

    def __init__(
        self,
        node: Facade,
        guard: Guard,
        passwords: Passwords,
        authentication: Authentication,
    ) -> None:
        self._node = node
        self._answer: Done = partial(answer_applied, node)
        self._guard = guard
        self._auth = guard.store
        self._passwords = passwords
        self._authentication = authentication

    def register(self, methods: MethodTable) -> None:
        """Add this service's methods."""
        for name, (field, kind) in _PROPOSED.items():
            methods.add_unary(PREFIX + name, partial(self._propose_as_is, field, kind))
        methods.add_unary(PREFIX + "AuthStatus", self.auth_status)
        methods.add_unary(PREFIX + "Authenticate", self._authentication.authenticate)
        methods.add_unary(PREFIX + "UserAdd", self.user_add)
        methods.add_unary(PREFIX + "UserChangePassword", self.user_change_password)
        methods.add_unary(PREFIX + "UserGet", self.user_get)
        methods.add_unary(PREFIX + "UserList", self.user_list)
        methods.add_unary(PREFIX + "RoleAdd", self.role_add)
        methods.add_unary(PREFIX + "RoleGet", self.role_get)
        methods.add_unary(PREFIX + "RoleList", self.role_list)

    # Changes.

    def _propose_as_is(self, field: int, kind: Any, call: Call, message: bytes) -> None:
        request, message = decode_entry(kind, message)
        self._node.propose(field, message, request, call, self._answer)

    def role_add(self, call: Call, message: bytes) -> None:
        """Propose a role."""
        request, message = decode_entry(pb.AuthRoleAddRequest, message)
        if not _has_short_name(call, request.name):
            return
        self._node.propose(fields.FIELD_ROLE_ADD, message, request, call, self._answer)

    def user_add(self, call: Call, message: bytes) -> None:
        """Propose a user, his password hashed; an empty one is a password, too."""
        request, message = decode_entry(pb.AuthUserAddRequest, message)
        if not _has_short_name(call, request.name):
            return
        if request.options.no_password:
            self._node.propose(fields.FIELD_USER_ADD, message, request, call, self._answer)
        else:
            self._propose_hashed(fields.FIELD_USER_ADD, request, call)

    def user_change_password(self, call: Call, message: bytes) -> None:
        """Propose another password, hashed.

        An empty one leaves what the client gives as a hash, as on real members.
        """
        request, message = decode_entry(pb.AuthUserChangePasswordRequest, message)
        field = fields.FIELD_USER_CHANGE_PASSWORD
        if request.password:
            self._propose_hashed(field, request, call)
        else:
            self._node.propose(field, message, request, call, self._answer)

    def _propose_hashed(self, field: int, request: Any, call: Call) -> None:
        if len(request.password.encode()) > PASSWORD_SIZE_MAX:
            fail(call, PasswordTooLongError())
            return
        password = request.password.encode()
        request.password = ""
        # Judged where it is applied; but who would be refused there is given no such work here.
        refusal = self._guard.admin_refusal(call.caller)
        if refusal is not None:
            fail(call, refusal)
            return

        def hashed(password_hash: bytes) -> None:
            request.hashedPassword = b64encode(password_hash).decode()
            message = request.SerializeToString()
            self._node.propose(field, message, request, call, self._answer)

        try:
            self._passwords.hash(password, call, hashed)
        except TooManyRequestsError as error:
            fail(call, error)

    # Questions.

    def auth_status(self, call: Call, message: bytes) -> None:
        """Tell whether users are asked; everybody may know."""
        decode(pb.AuthStatusRequest, message)
        auth = self._auth

        def status() -> Any:
            return pb.AuthStatusResponse(enabled=auth.is_enabled, authRevision=auth.revision)

        self._ask(call, lambda: self._guard.token_refusal(call.caller), status)

    def user_get(self, call: Call, message: bytes) -> None:
        """Tell the roles of a user."""
        name = decode(pb.AuthUserGetRequest, message).name
        self._ask(
            call,
            lambda: self._guard.user_get_refusal(call.caller, name),
            lambda: pb.AuthUserGetResponse(roles=self._auth.user_roles(name)),
        )

    def user_list(self, call: Call, message: bytes) -> None:
        """Tell the names of all users."""
        decode(pb.AuthUserListRequest, message)
        self._ask(
            call,
            lambda: self._guard.admin_refusal(call.caller),
            lambda: pb.AuthUserListResponse(users=self._auth.user_names()),
        )

    def role_get(self, call: Call, message: bytes) -> None:
        """Tell the permissions of a role."""
        name = decode(pb.AuthRoleGetRequest, message).role

        def permissions() -> Any:
            return pb.AuthRoleGetResponse(
                perm=permission_messages(self._auth.role_permissions(name))
            )

        self._ask(call, lambda: self._guard.role_get_refusal(call.caller, name), permissions)

    def role_list(self, call: Call, message: bytes) -> None:
        """Tell the names of all roles."""
        decode(pb.AuthRoleListRequest, message)
        self._ask(
            call,
            lambda: self._guard.admin_refusal(call.caller),
            lambda: pb.AuthRoleListResponse(roles=self._auth.role_names()),
        )

    def _ask(
        self,
        call: Call,
        refusal_of: Callable[[], Exception | None],
        answer: Callable[[], Any],
    ) -> None:
        """Answer once everything committed is applied, unless the caller is refused then."""

        def read(call: Call, error: Exception | None) -> None:
            if error is None:
                error = refusal_of()
            if error is not None:
                fail(call, error)
                return
            try:
                body = answer().SerializeToString()
            except AuthError as refusal:
                fail(call, refusal)
                return
            call.reply(self._node.header(self._node.store.revision) + body)

        refusal = self._guard.token_refusal(call.caller)
        if refusal is not None:
            fail(call, refusal)
        else:
            self._node.read(call, read)


def _has_short_name(call: Call, name: str) -> bool:
    """Whether the name of a user or a role can be stored; if not, fail the call."""
    if len(octets_of(name)) <= NAME_SIZE_MAX:
        return True
    call.fail(INVALID_ARGUMENT, TOO_LONG_NAME)
    return False
