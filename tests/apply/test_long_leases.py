"""Leases with very many keys: looked at in steps, with the verdicts of one look at each key."""

from __future__ import annotations

import pytest

from etcdtw.auth.access import LONG_LEASE_KEYS, STEP_KEYS
from etcdtw.auth.errors import OldRevisionError, PermissionDeniedError, UserNameEmptyError
from etcdtw.auth.values import WRITE, Permission
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.long_entry import LongEntryError, Steps
from etcdtw.wire import etcdserverpb as pb
from tests.apply.test_auth_entries import AuthRig
from tests.support.model_backend import ModelBackend

LEASE = 7
OTHER = 8


class CountingBackend(ModelBackend):
    """Tells how many keys of leases were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def attached(self, lease_id: int) -> list[bytes]:
        found = super().attached(lease_id)
        self.read += len(found)
        return found


class LeaseRig(AuthRig):
    """``ann`` writes below ``a``, ``bob`` below ``b``; a lease with very many of ann's keys."""

    def __init__(self, keys: int = LONG_LEASE_KEYS) -> None:
        super().__init__(CountingBackend())
        auth = self.auth
        for name in ("root", "ann", "bob"):
            auth.add_user(name, b"", no_password=True)
        auth.grant_role("root", "root")
        for name, key, end in (("ann", b"a", b"b"), ("bob", b"b", b"c"), ("bob", b"a", b"b")):
            if name not in auth.role_names():
                auth.add_role(name)
                auth.grant_role(name, name)
            auth.grant_permission(name, Permission(WRITE, key, end))
        auth.enable()
        for lease_id in (LEASE, OTHER):
            self.apply("root", lease_grant=pb.LeaseGrantRequest(ID=lease_id, TTL=60))
        for number in range(keys):
            self.put("root", b"a%06d" % number)

    @property
    def read(self) -> int:
        assert isinstance(self.backend, CountingBackend)
        return self.backend.read

    def put(
        self, user: str, key: bytes, lease: int = LEASE, revision: int | None = None
    ) -> Applied:
        return self.apply(user, revision, put=pb.PutRequest(key=key, lease=lease))

    def revoke(self, user: str, revision: int | None = None) -> Applied:
        return self.apply(user, revision, lease_revoke=pb.LeaseRevokeRequest(ID=LEASE))

    def steps_of(self, user: str, revision: int | None = None) -> Steps:
        with pytest.raises(LongEntryError) as long:
            self.revoke(user, revision)
        return long.value.steps


def taken(steps: Steps) -> tuple[int, Applied]:
    """Take all steps; return how many there were, and what they came to."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            applied: Applied = end.value
            return count, applied
        count += 1


def test_a_lease_with_many_keys_is_looked_at_in_steps_and_then_ends() -> None:
    rig = LeaseRig(2 * STEP_KEYS + 1)
    count, applied = taken(rig.steps_of("ann"))
    assert applied.error is None
    assert count == 2
    assert rig.backend.attached(LEASE) == []
    assert rig.applier.counts[9] == 1


def test_one_key_less_is_looked_at_in_one_go() -> None:
    rig = LeaseRig(LONG_LEASE_KEYS - 1)
    assert rig.revoke("ann").error is None


def test_one_foreign_key_among_many_is_found() -> None:
    rig = LeaseRig()
    rig.put("root", b"z")
    _, applied = taken(rig.steps_of("ann"))
    assert isinstance(applied.error, PermissionDeniedError)
    assert len(rig.backend.attached(LEASE)) == LONG_LEASE_KEYS + 1
    assert rig.applier.failed[9] == 1
    # Nothing of it is remembered: the key may have gone.
    rig.apply("root", delete_range=pb.DeleteRangeRequest(key=b"z"))
    assert taken(rig.steps_of("ann"))[1].error is None


@pytest.mark.parametrize(
    ("user", "revision", "refusal"),
    [
        ("", 0, UserNameEmptyError),
        ("ann", 1, OldRevisionError),
        ("nobody", None, PermissionDeniedError),
    ],
)
def test_who_is_refused_at_the_first_key_is_refused_after_one_step(
    user: str, revision: int | None, refusal: type[Exception]
) -> None:
    rig = LeaseRig()
    count, applied = taken(rig.steps_of(user, revision))
    assert count == 0
    assert isinstance(applied.error, refusal)


def test_an_administrator_is_not_asked_key_by_key() -> None:
    rig = LeaseRig()
    assert rig.revoke("root").error is None
    assert rig.read <= LONG_LEASE_KEYS


def test_who_joins_a_lease_with_many_keys_has_it_looked_at_once() -> None:
    rig = LeaseRig()
    with pytest.raises(LongEntryError) as long:
        rig.put("ann", b"aa")
    assert taken(long.value.steps)[1].error is None
    before = rig.read
    for number in range(100):
        assert rig.put("ann", b"ab%d" % number).error is None
    assert rig.read == before
    # bob may change all of these keys, and brings one that ann may not.
    with pytest.raises(LongEntryError) as long:
        rig.put("bob", b"b")
    assert taken(long.value.steps)[1].error is None
    assert rig.put("bob", b"b2").error is None
    with pytest.raises(LongEntryError) as long:
        rig.put("ann", b"ac")
    assert isinstance(taken(long.value.steps)[1].error, PermissionDeniedError)


def test_what_was_found_does_not_outlive_the_rights_it_was_found_under() -> None:
    rig = LeaseRig()
    with pytest.raises(LongEntryError) as long:
        rig.put("ann", b"aa")
    taken(long.value.steps)
    assert rig.put("ann", b"ab").error is None
    assert isinstance(rig.put("ann", b"ab", revision=1).error, OldRevisionError)
    rig.auth.revoke_permission("ann", b"a", b"b")
    rig.auth.grant_permission("ann", Permission(WRITE, b"aa", b"ab"))
    with pytest.raises(LongEntryError) as long:
        rig.put("ann", b"aa")
    assert isinstance(taken(long.value.steps)[1].error, PermissionDeniedError)


def test_a_txn_that_joins_two_such_leases_is_looked_at_for_both() -> None:
    rig = LeaseRig(STEP_KEYS + 1)
    for number in range(STEP_KEYS + 1):
        rig.put("root", b"ax%06d" % number, OTHER)
    ops = [
        pb.RequestOp(request_put=pb.PutRequest(key=key, lease=lease))
        for key, lease in ((b"a1", LEASE), (b"a2", OTHER), (b"a3", LEASE))
    ]
    with pytest.raises(LongEntryError) as long:
        rig.apply("ann", txn=pb.TxnRequest(success=ops))
    count, applied = taken(long.value.steps)
    assert applied.error is None
    assert count == 2
    assert b"a2" in rig.backend.attached(OTHER)
