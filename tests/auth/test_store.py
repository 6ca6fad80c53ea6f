"""Users and roles entry by entry: checks in etcd's order, revisions, rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from etcdtw.auth import errors
from etcdtw.auth.seams import TokenEvents
from etcdtw.auth.store import BUCKET_AUTH, BUCKET_ROLES, BUCKET_USERS, AuthStore
from etcdtw.auth.values import (
    READ,
    READWRITE,
    WRITE,
    Permission,
    Role,
    User,
    decode_role,
    decode_user,
    encode_role,
    encode_user,
)
from tests.support.model_backend import ModelBackend

HASH = b"$2a$10$abcdefghijklmnopqrstuu"


class Heard:
    """Notes what becomes of tokens."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []

    def assigned(self, token: str, user: str) -> None:
        self.events.append(("assigned", token, user))

    def user_gone(self, user: str) -> None:
        self.events.append(("gone", user))

    def disabled(self) -> None:
        self.events.append(("disabled",))


class StoreRig:
    """A store with a root, over plain buckets."""

    def __init__(self) -> None:
        self.buckets = ModelBackend()
        self.heard = Heard()
        tokens: TokenEvents = self.heard
        self.store = AuthStore(self.buckets, tokens)

    def enabled(self) -> AuthStore:
        store = self.store
        store.add_user("root", HASH, no_password=False)
        store.grant_role("root", "root")
        store.enable()
        return store


@pytest.fixture
def rig() -> StoreRig:
    return StoreRig()


def test_a_new_state_begins_with_revision_1_and_says_so_in_its_bucket(rig: StoreRig) -> None:
    assert rig.store.revision == 1
    assert not rig.store.is_enabled
    assert rig.buckets.bucket_items(BUCKET_AUTH) == [(b"authRevision", bytes(7) + b"\x01")]


def test_without_a_root_nothing_is_enabled(rig: StoreRig) -> None:
    store = rig.store
    with pytest.raises(errors.RootUserMissingError):
        store.enable()
    store.add_user("root", HASH, no_password=False)
    with pytest.raises(errors.RootRoleMissingError):
        store.enable()
    store.grant_role("root", "root")
    assert store.revision == 3
    store.enable()
    store.enable()
    assert (store.is_enabled, store.revision) == (True, 3)
    assert rig.buckets.bucket_get(BUCKET_AUTH, b"authEnabled") == b"\x01"


def test_switching_off_counts_and_ends_all_tokens(rig: StoreRig) -> None:
    store = rig.enabled()
    store.disable()
    store.disable()
    assert (store.is_enabled, store.revision) == (False, 4)
    assert rig.buckets.bucket_get(BUCKET_AUTH, b"authEnabled") == b"\x00"
    assert rig.heard.events == [("disabled",)]


def test_every_change_counts_once_and_what_changes_nothing_does_not(rig: StoreRig) -> None:
    store = rig.store
    steps: list[tuple[Callable[[], None], int]] = [
        (lambda: store.add_role("r"), 2),
        (lambda: store.grant_permission("r", Permission(READ, b"a", b"")), 3),
        (lambda: store.grant_permission("r", Permission(READ, b"a", b"")), 4),
        (lambda: store.add_user("u", HASH, no_password=False), 5),
        (lambda: store.grant_role("u", "r"), 6),
        (lambda: store.grant_role("u", "r"), 6),
        (lambda: store.change_password("u", HASH), 7),
        (lambda: store.revoke_permission("r", b"a", b""), 8),
        (lambda: store.revoke_role("u", "r"), 9),
        (lambda: store.delete_role("r"), 10),
        (lambda: store.delete_user("u"), 11),
    ]
    for step, revision in steps:
        step()
        assert store.revision == revision


def refused(step: Callable[[], None], error: type[Exception], store: AuthStore) -> None:
    before = store.revision
    with pytest.raises(error):
        step()
    assert store.revision == before


def test_what_is_refused_is_refused_in_this_order(rig: StoreRig) -> None:
    store = rig.store
    store.add_user("u", HASH, no_password=False)
    store.add_role("r")
    refused(lambda: store.add_user("", None, no_password=False), errors.UserNameEmptyError, store)
    refused(lambda: store.add_user("u", None, no_password=False), errors.UserExistsError, store)
    refused(lambda: store.add_user("v", None, no_password=False), errors.NoPasswordUserError, store)
    refused(lambda: store.delete_user("v"), errors.UserNotFoundError, store)
    refused(lambda: store.change_password("v", None), errors.UserNotFoundError, store)
    refused(lambda: store.change_password("u", None), errors.NoPasswordUserError, store)
    refused(lambda: store.grant_role("v", "x"), errors.UserNotFoundError, store)
    refused(lambda: store.grant_role("u", "x"), errors.RoleNotFoundError, store)
    refused(lambda: store.revoke_role("v", "r"), errors.UserNotFoundError, store)
    refused(lambda: store.revoke_role("u", "r"), errors.RoleNotGrantedError, store)
    refused(lambda: store.add_role(""), errors.RoleNameEmptyError, store)
    refused(lambda: store.add_role("r"), errors.RoleExistsError, store)
    refused(lambda: store.delete_role("x"), errors.RoleNotFoundError, store)
    refused(lambda: store.grant_permission("x", None), errors.PermissionMissingError, store)
    odd = Permission(READ, b"b", b"a")
    refused(lambda: store.grant_permission("x", odd), errors.InvalidManagementError, store)
    good = Permission(READ, b"b", b"")
    refused(lambda: store.grant_permission("x", good), errors.RoleNotFoundError, store)
    refused(lambda: store.revoke_permission("x", b"b", b""), errors.RoleNotFoundError, store)
    refused(
        lambda: store.revoke_permission("r", b"b", b""), errors.PermissionNotGrantedError, store
    )


def test_nobody_takes_from_root_what_it_needs_while_users_are_asked(rig: StoreRig) -> None:
    store = rig.enabled()
    store.add_role("root")
    refused(lambda: store.delete_user("root"), errors.InvalidManagementError, store)
    refused(lambda: store.delete_role("root"), errors.InvalidManagementError, store)
    refused(lambda: store.revoke_role("root", "root"), errors.InvalidManagementError, store)
    store.disable()
    store.revoke_role("root", "root")
    store.delete_role("root")
    store.delete_user("root")


def test_a_deleted_role_is_taken_from_everybody(rig: StoreRig) -> None:
    store = rig.store
    store.add_role("r")
    for name in ("a", "b", "c"):
        store.add_user(name, HASH, no_password=False)
    store.grant_role("a", "r")
    store.grant_role("a", "root")
    store.grant_role("c", "r")
    store.delete_role("r")
    assert [store.user_roles(name) for name in "abc"] == [("root",), (), ()]


def test_tokens_of_a_user_end_with_his_password_and_with_him(rig: StoreRig) -> None:
    store = rig.enabled()
    store.add_user("u", HASH, no_password=False)
    store.authenticate("u", "x.1")
    store.change_password("u", HASH)
    store.delete_user("u")
    assert rig.heard.events == [("assigned", "x.1", "u"), ("gone", "u"), ("gone", "u")]


def test_who_has_no_password_is_given_no_token(rig: StoreRig) -> None:
    refused(lambda: rig.store.authenticate("u", "x.1"), errors.AuthNotEnabledError, rig.store)
    store = rig.enabled()
    store.add_user("cert", None, no_password=True)
    refused(lambda: store.authenticate("cert", "x.1"), errors.AuthFailedError, store)
    refused(lambda: store.authenticate("v", "x.1"), errors.AuthFailedError, store)
    store.change_password("cert", HASH)
    found = store.user("cert")
    assert found is not None
    assert (found.password, found.no_password) == (b"", True)


def test_a_grant_on_the_same_range_changes_its_kind(rig: StoreRig) -> None:
    store = rig.store
    store.add_role("r")
    store.grant_permission("r", Permission(READ, b"b", b"c"))
    store.grant_permission("r", Permission(READ, b"a", b""))
    store.grant_permission("r", Permission(WRITE, b"b", b"c"))
    assert store.role_permissions("r") == (
        Permission(READ, b"a", b""),
        Permission(WRITE, b"b", b"c"),
    )


def test_a_grant_on_another_range_from_the_same_key_hides_the_first_ones_match(
    rig: StoreRig,
) -> None:
    """As on real members: they compare with the first permission of the key alone."""
    store = rig.store
    store.add_role("r")
    for kind, range_end in ((READ, b""), (READ, b"c"), (WRITE, b"c")):
        store.grant_permission("r", Permission(kind, b"b", range_end))
    assert [(p.kind, p.range_end) for p in store.role_permissions("r")] == [
        (READ, b""),
        (READ, b"c"),
        (WRITE, b"c"),
    ]
    store.revoke_permission("r", b"b", b"c")
    assert store.role_permissions("r") == (Permission(READ, b"b", b""),)


def test_the_role_root_tells_that_it_may_do_everything(rig: StoreRig) -> None:
    store = rig.store
    with pytest.raises(errors.RoleNotFoundError):
        store.role_permissions("root")
    store.add_role("root")
    assert store.role_permissions("root") == (Permission(READWRITE, b"", b"\0"),)


def test_names_are_told_in_the_order_of_their_octets(rig: StoreRig) -> None:
    store = rig.store
    for name in ("\uffff", "b", "a", "\U00010000"):
        store.add_user(name, HASH, no_password=False)
        store.add_role(name)
    assert store.user_names() == store.role_names() == ["a", "b", "\uffff", "\U00010000"]


def test_everything_is_found_again_in_the_buckets(rig: StoreRig) -> None:
    store = rig.enabled()
    store.add_role("r")
    store.grant_permission("r", Permission(READWRITE, b"a", b"\0"))
    store.add_user("u", HASH, no_password=False)
    store.grant_role("u", "r")
    other = AuthStore(rig.buckets)
    assert (other.is_enabled, other.revision) == (True, store.revision)
    assert other.user_names() == ["root", "u"]
    assert other.user("u") == store.user("u")
    assert other.role_permissions("r") == store.role_permissions("r")
    store.delete_role("r")
    other.restore()
    assert other.user_roles("u") == ()
    rights = other.rights("u")
    assert rights is not None
    assert not rights.read.has(b"a")


def test_rows_have_the_octets_of_real_members() -> None:
    user = User("alice", b"h", ("r", "s"), True, False)
    assert encode_user(user) == b"\x0a\x05alice\x12\x01h\x1a\x01r\x1a\x01s\x22\x00"
    assert encode_user(user._replace(has_options=False, roles=())) == b"\x0a\x05alice\x12\x01h"
    assert encode_user(User("c", b"", (), True, True)) == b"\x0a\x01c\x22\x02\x08\x01"
    role = Role("r", (Permission(READ, b"k", b""), Permission(WRITE, b"l", b"\0")))
    assert encode_role(role) == (b"\x0a\x01r\x12\x03\x12\x01k\x12\x08\x08\x01\x12\x01l\x1a\x01\x00")
    assert decode_user(encode_user(user)) == user
    assert decode_role(encode_role(role)) == role


def test_a_name_that_is_no_text_goes_through_unchanged(rig: StoreRig) -> None:
    rig.buckets.bucket_put(BUCKET_USERS, b"\xfe", b"\x0a\x01\xfe")
    rig.buckets.bucket_put(BUCKET_ROLES, b"\xfe", b"\x0a\x01\xfe")
    rig.store.restore()
    (name,) = rig.store.user_names()
    rig.store.change_password(name, HASH)
    assert [key for key, _ in rig.buckets.bucket_items(BUCKET_USERS)] == [b"\xfe"]
