"""Who may do what: each kind of request, and each hole that real members once had."""

from __future__ import annotations

from typing import Any

import pytest

from etcdtw.auth.access import Access
from etcdtw.auth.errors import (
    OldRevisionError,
    PermissionDeniedError,
    UserNameEmptyError,
    UserNotFoundError,
)
from etcdtw.auth.store import AuthStore
from etcdtw.auth.values import READ, WRITE, Permission
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.entry_header import NOBODY, Asker
from etcdtw.wire.requests import Put, Txn, txn_of
from tests.support.model_backend import ModelBackend


class AccessRig:
    """``u`` reads ``r*`` and writes ``w*``; ``root`` may do everything."""

    def __init__(self) -> None:
        self.backend = ModelBackend()
        self.store = AuthStore(self.backend)
        self.access = Access(self.store, self.backend)
        store = self.store
        for name in ("root", "u"):
            store.add_user(name, b"", no_password=True)
        store.grant_role("root", "root")
        store.add_role("role")
        store.grant_permission("role", Permission(READ, b"r", b"s"))
        store.grant_permission("role", Permission(WRITE, b"w", b"x"))
        store.grant_role("u", "role")
        store.enable()

    @property
    def user(self) -> Asker:
        return Asker("u", self.store.revision)

    @property
    def root(self) -> Asker:
        return Asker("root", self.store.revision)

    def txn(self, **fields: Any) -> Exception | None:
        return self.access.txn_refusal(self.user, txn(**fields))


def txn(**fields: Any) -> Txn:
    return txn_of(pb.TxnRequest(**fields))


def put_op(key: bytes, **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, **fields))


def range_op(key: bytes, range_end: bytes = b"") -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=range_end))


def delete_op(key: bytes, range_end: bytes = b"", prev_kv: bool = False) -> pb.RequestOp:
    request = pb.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=prev_kv)
    return pb.RequestOp(request_delete_range=request)


@pytest.fixture
def rig() -> AccessRig:
    return AccessRig()


def denied(refusal: Exception | None) -> bool:
    return isinstance(refusal, PermissionDeniedError)


def test_while_auth_is_off_nobody_is_refused_anything(rig: AccessRig) -> None:
    rig.store.disable()
    access = rig.access
    assert access.user_refusal(NOBODY) is None
    assert access.admin_refusal(NOBODY) is None
    assert access.put_refusal(NOBODY, Put(b"k", b"", 7, True)) is None
    assert access.txn_refusal(NOBODY, txn(success=[put_op(b"k")])) is None
    assert access.listing_check(NOBODY) is None
    assert access.renewal_check(NOBODY, 7) is None


def test_nobody_is_refused_as_nobody(rig: AccessRig) -> None:
    access = rig.access
    assert isinstance(access.user_refusal(NOBODY), UserNameEmptyError)
    assert isinstance(access.admin_refusal(NOBODY), UserNameEmptyError)
    assert isinstance(access.read_refusal(NOBODY, b"r", b""), UserNameEmptyError)
    assert isinstance(access.put_refusal(NOBODY, Put(b"w")), UserNameEmptyError)


def test_a_certificate_without_a_name_is_a_user_who_may_do_nothing(rig: AccessRig) -> None:
    nameless = Asker("", rig.store.revision)
    assert rig.access.user_refusal(nameless) is None
    assert isinstance(rig.access.admin_refusal(nameless), UserNameEmptyError)
    assert denied(rig.access.read_refusal(nameless, b"r", b""))


def test_who_was_established_before_a_change_is_asked_to_come_again(rig: AccessRig) -> None:
    before = rig.user
    root = rig.root
    rig.store.add_role("another")
    assert isinstance(rig.access.read_refusal(before, b"r", b""), OldRevisionError)
    assert isinstance(rig.access.read_refusal(root, b"r", b""), OldRevisionError)
    assert rig.access.admin_refusal(root) is None
    assert rig.access.read_refusal(rig.user, b"r", b"") is None


def test_a_deleted_user_may_do_nothing(rig: AccessRig) -> None:
    rig.store.delete_user("u")
    assert denied(rig.access.read_refusal(rig.user, b"r", b""))
    assert isinstance(rig.access.admin_refusal(rig.user), UserNotFoundError)


def test_reading_and_writing_are_permitted_apart(rig: AccessRig) -> None:
    access, user = rig.access, rig.user
    assert access.read_refusal(user, b"r", b"s") is None
    assert denied(access.read_refusal(user, b"r", b"s\0"))
    assert denied(access.read_refusal(user, b"w", b""))
    assert access.put_refusal(user, Put(b"w1")) is None
    assert denied(access.put_refusal(user, Put(b"r1")))
    assert access.delete_refusal(user, pb.DeleteRangeRequest(key=b"w", range_end=b"x")) is None
    assert denied(access.delete_refusal(user, pb.DeleteRangeRequest(key=b"w", range_end=b"\0")))


def test_a_previous_value_is_read(rig: AccessRig) -> None:
    """CVE-2026-44283: within a txn it was not."""
    previous = Put(b"w", prev_kv=True)
    assert denied(rig.access.put_refusal(rig.user, previous))
    request = pb.DeleteRangeRequest(key=b"w", prev_kv=True)
    assert denied(rig.access.delete_refusal(rig.user, request))
    assert denied(rig.txn(success=[put_op(b"w", prev_kv=True)]))
    assert denied(rig.txn(failure=[delete_op(b"w", prev_kv=True)]))


def test_a_lease_that_holds_what_one_may_not_write_cannot_be_joined_or_ended(
    rig: AccessRig,
) -> None:
    """CVE-2026-44283: within a txn it could be joined."""
    rig.backend.attach(7, b"w1")
    rig.backend.attach(8, b"w1")
    rig.backend.attach(8, b"x1")
    access, user = rig.access, rig.user
    assert access.put_refusal(user, Put(b"w", lease=7)) is None
    assert denied(access.put_refusal(user, Put(b"w", lease=8)))
    assert denied(rig.txn(success=[put_op(b"w", lease=8)]))


def test_both_branches_of_a_txn_and_its_comparisons_are_looked_at(rig: AccessRig) -> None:
    assert rig.txn(success=[put_op(b"w")], failure=[range_op(b"r")]) is None
    assert denied(rig.txn(success=[put_op(b"w")], failure=[put_op(b"x")]))
    assert denied(rig.txn(success=[put_op(b"w")], compare=[pb.Compare(key=b"w")]))
    open_end = pb.Compare(key=b"r", range_end=b"\0")
    assert denied(rig.txn(success=[put_op(b"w")], compare=[open_end]))


def test_txns_within_txns_are_looked_at(rig: AccessRig) -> None:
    """CVE-2026-33343."""
    inner = pb.RequestOp(request_txn=pb.TxnRequest(failure=[put_op(b"x")]))
    middle = pb.RequestOp(request_txn=pb.TxnRequest(success=[inner]))
    assert denied(rig.txn(success=[put_op(b"w")], failure=[middle]))
    compared = pb.RequestOp(request_txn=pb.TxnRequest(compare=[pb.Compare(key=b"x")]))
    assert denied(rig.txn(success=[compared]))
    fine = pb.RequestOp(request_txn=pb.TxnRequest(success=[put_op(b"w")]))
    assert rig.txn(success=[fine, pb.RequestOp()]) is None


def test_one_may_look_at_oneself_and_ones_roles(rig: AccessRig) -> None:
    access, user = rig.access, rig.user
    assert access.user_get_refusal(user, "u") is None
    assert denied(access.user_get_refusal(user, "root"))
    assert access.user_get_refusal(rig.root, "u") is None
    assert access.role_get_refusal(user, "role") is None
    assert denied(access.role_get_refusal(user, "root"))
    assert access.role_get_refusal(rig.root, "nobody's") is None
    assert isinstance(access.user_get_refusal(NOBODY, "u"), UserNameEmptyError)
    assert isinstance(access.role_get_refusal(NOBODY, "role"), UserNameEmptyError)
