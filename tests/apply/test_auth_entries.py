"""Users and roles by the log: etcd's entries, tokens, and passwords that come in plain text."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from etcdtw.apply.alarms import Alarms
from etcdtw.apply.applier import Applier
from etcdtw.apply.auth_entries import NAME_SIZE_MAX, AuthEntries
from etcdtw.apply.authorization import Authorization
from etcdtw.apply.entries import UnknownEntryError
from etcdtw.apply.members import Members
from etcdtw.auth.access import Access
from etcdtw.auth.errors import (
    AuthNotEnabledError,
    NoPasswordUserError,
    OldRevisionError,
    PermissionDeniedError,
    PermissionMissingError,
    RootRoleMissingError,
    UserExistsError,
    UserNameEmptyError,
)
from etcdtw.auth.store import AuthStore
from etcdtw.lease.lessor import Lessor
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.long_entry import LongEntryError
from etcdtw.mvcc.store import Store
from etcdtw.wire import authpb
from etcdtw.wire import etcdserverpb as pb
from tests.support.auth_rig import CLUSTER_ID, LateHashes
from tests.support.model_backend import ModelBackend

HASH = b64encode(b"$2a$10$abc").decode()


class AuthRig:
    """An applier that asks its users."""

    def __init__(self, backend: ModelBackend | None = None) -> None:
        self.backend = backend or ModelBackend()
        self.auth = AuthStore(self.backend, self)
        self.tokens: list[tuple[str, str]] = []
        self.hashes = LateHashes()
        lessor = Lessor(2)
        self.store = Store(self.backend, lessor.exists)
        self.version = "3.7.0"
        self.entries = AuthEntries(
            self.auth, self.store, CLUSTER_ID, lambda: self.version, self.hashes
        )
        self.entries.index = 9
        self.access = Access(self.auth, self.backend)
        self.applier = Applier(
            self.backend,
            self.store,
            lessor,
            Members(self.backend, 1),
            Alarms(self.backend),
            self.entries,
            Authorization(self.auth, self.access),
        )

    def assigned(self, token: str, user: str) -> None:
        self.tokens.append((token, user))

    def user_gone(self, user: str) -> None:
        self.tokens.append(("", user))

    def disabled(self) -> None:
        self.tokens.clear()

    def apply(self, user: str = "", revision: int | None = None, **request: Any) -> Applied:
        """Apply an entry as real members write it, in the name of ``user``."""
        if revision is None:
            revision = self.auth.revision if user else 0
        header = pb.RequestHeader(ID=9, username=user, auth_revision=revision)
        entry = pb.InternalRaftRequest(header=header, **request)
        return self.applier.apply_data(entry.SerializeToString())

    def enable(self) -> None:
        for name in ("root", "alice"):
            self.apply(auth_user_add=pb.AuthUserAddRequest(name=name, hashedPassword=HASH))
        grant = pb.AuthUserGrantRoleRequest
        self.apply(auth_user_grant_role=grant(user="root", role="root"))
        self.apply(auth_role_add=pb.AuthRoleAddRequest(name="r"))
        perm = authpb.Permission(permType=authpb.Permission.READWRITE, key=b"a", range_end=b"b")
        request = pb.AuthRoleGrantPermissionRequest(name="r", perm=perm)
        self.apply(auth_role_grant_permission=request)
        self.apply(auth_user_grant_role=grant(user="alice", role="r"))
        assert self.apply(auth_enable=pb.AuthEnableRequest()).error is None


@pytest.fixture
def rig() -> AuthRig:
    return AuthRig()


def test_users_and_roles_are_made_by_entries_of_real_members(rig: AuthRig) -> None:
    rig.enable()
    assert (rig.auth.is_enabled, rig.auth.revision) == (True, 7)
    user = rig.auth.user("alice")
    assert user is not None
    assert (user.password, user.roles) == (b"$2a$10$abc", ("r",))
    again = AuthRig(rig.backend)
    assert again.auth.user("alice") == user


def test_an_entry_is_judged_by_whom_its_header_names(rig: AuthRig) -> None:
    rig.enable()
    put = pb.PutRequest(key=b"a1", value=b"v")
    assert isinstance(rig.apply(put=put).error, UserNameEmptyError)
    assert rig.apply("alice", put=put).error is None
    assert isinstance(rig.apply("alice", 6, put=put).error, OldRevisionError)
    assert isinstance(rig.apply("alice", put=pb.PutRequest(key=b"b1")).error, PermissionDeniedError)
    delete = pb.DeleteRangeRequest(key=b"a", range_end=b"b")
    assert rig.apply("alice", delete_range=delete).error is None
    within = pb.RequestOp(request_put=pb.PutRequest(key=b"b1"))
    txn = pb.TxnRequest(failure=[pb.RequestOp(request_txn=pb.TxnRequest(success=[within]))])
    assert isinstance(rig.apply("alice", txn=txn).error, PermissionDeniedError)


def test_only_root_manages_users_and_what_nobody_asks_for_is_not_asked_about(
    rig: AuthRig,
) -> None:
    rig.enable()
    add = pb.AuthRoleAddRequest(name="s")
    assert isinstance(rig.apply(auth_role_add=add).error, UserNameEmptyError)
    assert isinstance(rig.apply("alice", auth_role_add=add).error, PermissionDeniedError)
    assert rig.apply("root", auth_role_add=add).error is None
    # As real members do: these were asked about where they were proposed.
    assert rig.apply(lease_grant=pb.LeaseGrantRequest(ID=7, TTL=10)).error is None
    assert rig.apply(alarm=pb.AlarmRequest()).error is None


def test_a_lease_is_ended_by_who_may_write_its_keys(rig: AuthRig) -> None:
    rig.enable()
    rig.apply(lease_grant=pb.LeaseGrantRequest(ID=7, TTL=10))
    rig.apply("root", put=pb.PutRequest(key=b"z", lease=7))
    revoke = pb.LeaseRevokeRequest(ID=7)
    assert isinstance(rig.apply("alice", lease_revoke=revoke).error, PermissionDeniedError)
    assert rig.apply("root", lease_revoke=revoke).error is None


def test_the_token_is_the_same_on_every_member(rig: AuthRig) -> None:
    request = pb.InternalAuthenticateRequest(name="alice", simple_token="abc")
    assert isinstance(rig.apply(authenticate=request).error, AuthNotEnabledError)
    rig.enable()
    applied = rig.apply(authenticate=request)
    assert pb.AuthenticateResponse.FromString(applied.body).token == "abc.8"
    rig.version = "3.4.0"
    applied = rig.apply(authenticate=request)
    assert pb.AuthenticateResponse.FromString(applied.body).token == "abc.9"
    assert rig.tokens == [("abc.8", "alice"), ("abc.9", "alice")]


def test_what_is_missing_or_cannot_be_read_is_refused(rig: AuthRig) -> None:
    request = pb.AuthRoleGrantPermissionRequest(name="r")
    assert isinstance(rig.apply(auth_role_grant_permission=request).error, PermissionMissingError)
    add = pb.AuthUserAddRequest(name="bob", hashedPassword="*")
    assert isinstance(rig.apply(auth_user_add=add).error, NoPasswordUserError)
    spread = pb.AuthUserAddRequest(name="bob", hashedPassword=f"\n{HASH[:5]}\r{HASH[5:]}")
    assert rig.apply(auth_user_add=spread).error is None
    change = pb.AuthUserChangePasswordRequest(name="bob", hashedPassword="====")
    assert isinstance(rig.apply(auth_user_change_password=change).error, NoPasswordUserError)
    change.hashedPassword = ""
    assert rig.apply(auth_user_change_password=change).error is None


class Counter:
    """Counts calls."""

    counted = 0

    def count(self) -> None:
        self.counted += 1


def finish(rig: AuthRig, error: LongEntryError) -> Applied:
    """Take the steps of a long entry; its hash is made when it waits for it."""
    try:
        while True:
            wait = next(error.steps)
            assert wait is not None
            resumed = Counter()
            wait(resumed.count)
            rig.hashes.started[-1].make()
            assert resumed.counted == 1
    except StopIteration as end:
        applied: Applied = end.value
        return applied


def test_a_password_in_plain_text_is_hashed_alike_by_every_member(rig: AuthRig) -> None:
    """As 3.4 proposes it."""
    other = AuthRig()
    rows = []
    for one in (rig, other):
        with pytest.raises(LongEntryError) as long:
            one.apply(auth_user_add=pb.AuthUserAddRequest(name="bob", password="pw"))
        assert one.auth.user("bob") is None
        assert finish(one, long.value).error is None
        change = pb.AuthUserChangePasswordRequest(name="bob", password="pw")
        with pytest.raises(LongEntryError) as long:
            one.apply(auth_user_change_password=change)
        assert finish(one, long.value).error is None
        rows.append(one.auth.user("bob"))
    assert rows[0] == rows[1]
    assert rows[0] is not None
    assert rows[0].password.startswith(b"hash of pw with ")
    assert [len(late.salt) for late in rig.hashes.started] == [16, 16]


def test_the_salt_differs_by_user_and_by_entry(rig: AuthRig) -> None:
    for index, name in ((9, "a"), (9, "b"), (10, "c"), (10, "a")):
        rig.entries.index = index
        with pytest.raises(LongEntryError) as long:
            rig.apply(auth_user_add=pb.AuthUserAddRequest(name=name, password="pw"))
        next(long.value.steps)
    assert len({late.salt for late in rig.hashes.started}) == 4


def test_nothing_is_hashed_for_what_is_refused_anyway(rig: AuthRig) -> None:
    rig.enable()
    for request, error in (
        (pb.AuthUserAddRequest(name="alice", password="pw"), UserExistsError),
        (pb.AuthUserAddRequest(password="pw"), UserNameEmptyError),
        (pb.AuthUserAddRequest(name="bob", password="p" * 73), NoPasswordUserError),
    ):
        assert isinstance(rig.apply("root", auth_user_add=request).error, error)
    plain = pb.AuthUserAddRequest(name="bob", password="pw")
    assert isinstance(rig.apply("alice", auth_user_add=plain).error, PermissionDeniedError)
    plain.options.no_password = True
    assert rig.apply("root", auth_user_add=plain).error is None
    assert rig.hashes.started == []


def test_a_name_that_cannot_be_stored_stops_the_member(rig: AuthRig) -> None:
    longest = "n" * NAME_SIZE_MAX
    assert rig.apply(auth_role_add=pb.AuthRoleAddRequest(name=longest)).error is None
    assert rig.apply(auth_user_add=pb.AuthUserAddRequest(name=longest)).error is None
    with pytest.raises(UnknownEntryError, match="name has more than 511 octets"):
        rig.apply(auth_role_add=pb.AuthRoleAddRequest(name=longest + "n"))
    with pytest.raises(UnknownEntryError):
        rig.apply(auth_user_add=pb.AuthUserAddRequest(name=longest + "n"))


def test_every_kind_of_entry_is_undone_by_another(rig: AuthRig) -> None:
    rig.enable()
    rows = {name: rig.backend.bucket_items(name) for name in (b"authUsers", b"authRoles")}
    grant = pb.AuthUserGrantRoleRequest(user="bob", role="s")
    revoke = pb.AuthUserRevokeRoleRequest(name="bob", role="s")
    perm = authpb.Permission(key=b"k", range_end=b"l")
    permit = pb.AuthRoleGrantPermissionRequest(name="s", perm=perm)
    forbid = pb.AuthRoleRevokePermissionRequest(role="s", key=b"k", range_end=b"l")
    entries: list[dict[str, Any]] = [
        {"auth_user_add": pb.AuthUserAddRequest(name="bob", hashedPassword=HASH)},
        {"auth_role_add": pb.AuthRoleAddRequest(name="s")},
        {"auth_user_grant_role": grant},
        {"auth_role_grant_permission": permit},
        {"auth_role_revoke_permission": forbid},
        {"auth_user_revoke_role": revoke},
        {"auth_role_delete": pb.AuthRoleDeleteRequest(role="s")},
        {"auth_user_delete": pb.AuthUserDeleteRequest(name="bob")},
    ]
    for entry in entries:
        revision = rig.auth.revision
        assert rig.apply("root", **entry).error is None
        assert rig.auth.revision == revision + 1
    assert {name: rig.backend.bucket_items(name) for name in rows} == rows
    for entry in entries[4:]:
        assert rig.apply("root", **entry).error is not None
    assert rig.apply("root", auth_disable=pb.AuthDisableRequest()).error is None
    assert not rig.auth.is_enabled
    rig.apply(auth_user_revoke_role=pb.AuthUserRevokeRoleRequest(name="root", role="root"))
    assert isinstance(rig.apply(auth_enable=pb.AuthEnableRequest()).error, RootRoleMissingError)
