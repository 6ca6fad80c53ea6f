"""The 17 methods of the Auth service, over a node in memory."""

from __future__ import annotations

import bcrypt
import pytest

from etcdtw.apply.auth_entries import NAME_SIZE_MAX
from etcdtw.grpc.call import FAILED_PRECONDITION, INVALID_ARGUMENT, PERMISSION_DENIED, UNKNOWN
from etcdtw.grpc.caller import Caller
from etcdtw.rpc.auth.service import TOO_LONG_NAME
from etcdtw.server.metrics.table import GRPC_METHODS
from etcdtw.wire import authpb
from etcdtw.wire import etcdserverpb as pb
from tests.rpc.auth.auth_service_rig import AuthServiceRig, showing

ADD = pb.AuthUserAddRequest
EMPTY = (INVALID_ARGUMENT, "etcdserver: user name is empty")
DENIED = (PERMISSION_DENIED, "etcdserver: permission denied")
FAILED = (INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password")


@pytest.fixture
def rig() -> AuthServiceRig:
    return AuthServiceRig()


def enable(rig: AuthServiceRig) -> tuple[Caller, Caller]:
    """Add root and ann, and switch auth on; return them with their tokens."""
    for name in ("root", "ann"):
        rig.ask("UserAdd", ADD(name=name, password=name), pb.AuthUserAddResponse)
    grant = pb.AuthUserGrantRoleRequest(user="root", role="root")
    rig.ask("UserGrantRole", grant, pb.AuthUserGrantRoleResponse)
    rig.ask("AuthEnable", pb.AuthEnableRequest(), pb.AuthEnableResponse)
    return log_in(rig, "root"), log_in(rig, "ann")


def log_in(rig: AuthServiceRig, name: str) -> Caller:
    request = pb.AuthenticateRequest(name=name, password=name)
    return showing(rig.ask("Authenticate", request, pb.AuthenticateResponse).token)


def test_every_method_is_there(rig: AuthServiceRig) -> None:
    wanted = {name for _, service, name in GRPC_METHODS if service == "etcdserverpb.Auth"}
    assert {path.rpartition("/")[2] for path in rig.methods.paths()} == wanted
    assert len(wanted) == 17


def test_a_password_is_hashed_before_it_is_proposed(rig: AuthServiceRig) -> None:
    rig.ask("UserAdd", ADD(name="ann", password="canary-word"), pb.AuthUserAddResponse)
    user = rig.auth.user("ann")
    assert user is not None
    assert user.password.startswith(b"$2a$04$")
    assert bcrypt.checkpw(b"canary-word", user.password)
    log = rig.node_rig.log
    entries = log.entries(log.first_index(), log.last_index() + 1, 1 << 30)
    assert not any(b"canary-word" in entry.data for entry in entries)


def test_an_empty_password_is_one_and_no_password_is_none(rig: AuthServiceRig) -> None:
    rig.ask("UserAdd", ADD(name="ann"), pb.AuthUserAddResponse)
    options = authpb.UserAddOptions(no_password=True)
    rig.ask("UserAdd", ADD(name="cert", password="x", options=options), pb.AuthUserAddResponse)
    users = [rig.auth.user(name) for name in ("ann", "cert")]
    assert users[0] is not None
    assert users[1] is not None
    assert bcrypt.checkpw(b"", users[0].password)
    assert (users[1].password, users[1].no_password) == (b"", True)


def test_what_cannot_be_hashed_or_stored_is_refused_at_once(rig: AuthServiceRig) -> None:
    too_long = (UNKNOWN, "bcrypt: password length exceeds 72 bytes")
    rig.ask("UserAdd", ADD(name="ann", password="p" * 72), pb.AuthUserAddResponse)
    assert rig.refusal("UserAdd", ADD(name="bob", password="p" * 73)) == too_long
    change = pb.AuthUserChangePasswordRequest(name="ann", password="\u20ac" * 25)
    assert rig.refusal("UserChangePassword", change) == too_long
    long_name = "n" * (NAME_SIZE_MAX + 1)
    refused = (INVALID_ARGUMENT, TOO_LONG_NAME)
    assert rig.refusal("UserAdd", ADD(name=long_name)) == refused
    assert rig.refusal("RoleAdd", pb.AuthRoleAddRequest(name=long_name)) == refused
    rig.ask("RoleAdd", pb.AuthRoleAddRequest(name=long_name[1:]), pb.AuthRoleAddResponse)


def test_who_may_not_manage_users_makes_nobody_hash(rig: AuthServiceRig) -> None:
    root, ann = enable(rig)
    rig.is_quick = False
    request = ADD(name="bob", password="bob")
    assert rig.refusal("UserAdd", request) == EMPTY
    assert rig.refusal("UserAdd", request, ann) == DENIED
    assert rig.jobs == []
    call = rig.start("UserAdd", request, root)
    assert len(rig.jobs) == 1
    rig.work()
    assert call.status == (0, "")


def test_a_changed_password_counts_and_an_empty_one_lets_a_hash_through(
    rig: AuthServiceRig,
) -> None:
    enable(rig)
    root = log_in(rig, "root")
    change = pb.AuthUserChangePasswordRequest(name="ann", password="new")
    rig.ask("UserChangePassword", change, pb.AuthUserChangePasswordResponse, root)
    request = pb.AuthenticateRequest(name="ann", password="ann")
    assert rig.refusal("Authenticate", request) == FAILED
    request.password = "new"
    rig.ask("Authenticate", request, pb.AuthenticateResponse)
    change = pb.AuthUserChangePasswordRequest(name="ann", hashedPassword="QUJD")
    rig.ask("UserChangePassword", change, pb.AuthUserChangePasswordResponse, root)
    user = rig.auth.user("ann")
    assert user is not None
    assert user.password == b"ABC"


def test_questions_are_answered_from_what_is_applied(rig: AuthServiceRig) -> None:
    rig.ask("RoleAdd", pb.AuthRoleAddRequest(name="r"), pb.AuthRoleAddResponse)
    perm = authpb.Permission(permType=authpb.Permission.READ, key=b"a", range_end=b"b")
    grant = pb.AuthRoleGrantPermissionRequest(name="r", perm=perm)
    rig.ask("RoleGrantPermission", grant, pb.AuthRoleGrantPermissionResponse)
    rig.ask("UserAdd", ADD(name="ann", password="x"), pb.AuthUserAddResponse)
    granted = pb.AuthUserGrantRoleRequest(user="ann", role="r")
    rig.ask("UserGrantRole", granted, pb.AuthUserGrantRoleResponse)
    last_index = rig.node_rig.log.last_index()
    status = rig.ask("AuthStatus", pb.AuthStatusRequest(), pb.AuthStatusResponse)
    assert (status.enabled, status.authRevision) == (False, 5)
    user = rig.ask("UserGet", pb.AuthUserGetRequest(name="ann"), pb.AuthUserGetResponse)
    assert list(user.roles) == ["r"]
    role = rig.ask("RoleGet", pb.AuthRoleGetRequest(role="r"), pb.AuthRoleGetResponse)
    assert list(role.perm) == [perm]
    users = rig.ask("UserList", pb.AuthUserListRequest(), pb.AuthUserListResponse)
    roles = rig.ask("RoleList", pb.AuthRoleListRequest(), pb.AuthRoleListResponse)
    assert (list(users.users), list(roles.roles)) == (["ann"], ["r"])
    assert users.header.revision == 1
    # They cost no entry.
    assert rig.node_rig.log.last_index() == last_index
    not_found = (FAILED_PRECONDITION, "etcdserver: user name not found")
    assert rig.refusal("UserGet", pb.AuthUserGetRequest(name="bob")) == not_found
    assert rig.refusal("RoleGet", pb.AuthRoleGetRequest(role="s"))[0] == FAILED_PRECONDITION


def test_everybody_may_know_whether_users_are_asked_and_look_at_himself(
    rig: AuthServiceRig,
) -> None:
    root, ann = enable(rig)
    assert rig.ask("AuthStatus", pb.AuthStatusRequest(), pb.AuthStatusResponse).enabled
    invalid = (16, "etcdserver: invalid auth token")
    assert rig.refusal("AuthStatus", pb.AuthStatusRequest(), showing("no.1")) == invalid
    get = pb.AuthUserGetRequest(name="ann")
    rig.ask("UserGet", get, pb.AuthUserGetResponse, ann)
    rig.ask("UserGet", get, pb.AuthUserGetResponse, root)
    assert rig.refusal("UserGet", get) == EMPTY
    assert rig.refusal("UserGet", pb.AuthUserGetRequest(name="root"), ann) == DENIED
    assert rig.refusal("RoleGet", pb.AuthRoleGetRequest(role="r"), ann) == DENIED
    assert rig.refusal("UserList", pb.AuthUserListRequest(), ann) == DENIED
    assert rig.refusal("RoleList", pb.AuthRoleListRequest()) == EMPTY
    assert rig.refusal("UserList", pb.AuthUserListRequest(), showing("no.1")) == invalid


def test_changes_are_judged_where_they_are_applied(rig: AuthServiceRig) -> None:
    root, ann = enable(rig)
    request = pb.AuthRoleAddRequest(name="r")
    assert rig.refusal("RoleAdd", request, ann) == DENIED
    assert rig.refusal("RoleAdd", request) == EMPTY
    rig.ask("RoleAdd", request, pb.AuthRoleAddResponse, root)
    rig.ask("AuthDisable", pb.AuthDisableRequest(), pb.AuthDisableResponse, root)
    # Tokens are not looked at any more.
    request.name = "s"
    rig.ask("RoleAdd", request, pb.AuthRoleAddResponse, showing("no.1"))
