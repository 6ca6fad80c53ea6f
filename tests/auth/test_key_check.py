"""What is asked of the keys of a lease before it is renewed or shown, and what is remembered."""

from __future__ import annotations

import pytest

from etcdtw.auth.errors import AuthError, OldRevisionError, PermissionDeniedError
from etcdtw.auth.key_check import KNOWN_KEYS_MIN, KNOWN_LEASES_MAX, KeyCheck, KnownLeases
from etcdtw.auth.ranges import Ranges
from etcdtw.auth.rights import Rights
from etcdtw.auth.values import READ, WRITE, Permission
from etcdtw.wire.entry_header import Asker
from etcdtw.wire.requests import Put
from tests.auth.test_access import AccessRig

LEASE = 7
WRITABLE = [b"w%d" % number for number in range(KNOWN_KEYS_MIN)]


@pytest.fixture
def rig() -> AccessRig:
    return AccessRig()


def renewal(rig: AccessRig, lease_id: int = LEASE) -> KeyCheck:
    check = rig.access.renewal_check(rig.user, lease_id)
    assert check is not None
    return check


def test_a_lease_is_renewed_by_who_may_write_each_of_its_keys(rig: AccessRig) -> None:
    check = renewal(rig)
    assert check.refusal([b"w1", b"w2"]) is None
    assert isinstance(check.refusal([b"w1", b"r1"]), PermissionDeniedError)
    assert check.refusal([]) is None
    assert rig.access.renewal_check(rig.root, LEASE) is None


def test_its_keys_are_told_to_who_may_read_each_of_them(rig: AccessRig) -> None:
    check = rig.access.listing_check(rig.user)
    assert check is not None
    assert check.refusal([b"r1"]) is None
    assert isinstance(check.refusal([b"w1"]), PermissionDeniedError)
    assert rig.access.listing_check(rig.root) is None


def test_who_has_no_rights_is_refused_at_the_first_key_only(rig: AccessRig) -> None:
    for asker, error in (
        (Asker("u", 1), OldRevisionError),
        (Asker("nobody", rig.store.revision), PermissionDeniedError),
    ):
        check = rig.access.renewal_check(asker, LEASE)
        assert check is not None
        assert check.refusal([]) is None
        assert isinstance(check.refusal([b"w"]), error)


def test_a_change_of_users_and_roles_ends_the_question(rig: AccessRig) -> None:
    check = renewal(rig)
    rig.store.add_role("another")
    assert isinstance(check.refusal([b"w1"]), OldRevisionError)


def test_what_was_found_of_many_keys_is_remembered_as_long_as_the_rights(rig: AccessRig) -> None:
    rig.access.may_renew(renewal(rig), LEASE, KNOWN_KEYS_MIN - 1)
    assert rig.access.renewal_check(rig.user, LEASE) is not None
    rig.access.may_renew(renewal(rig), LEASE, KNOWN_KEYS_MIN)
    assert rig.access.renewal_check(rig.user, LEASE) is None
    assert rig.access.renewal_check(rig.user, LEASE + 1) is not None
    rig.store.grant_permission("role", Permission(READ, b"x", b""))
    assert rig.access.renewal_check(rig.user, LEASE) is not None


def test_what_was_found_ends_when_a_key_comes_that_the_user_may_not_write(rig: AccessRig) -> None:
    rig.access.may_renew(renewal(rig), LEASE, KNOWN_KEYS_MIN)
    assert rig.access.put_refusal(rig.root, Put(b"w9", lease=LEASE)) is None
    assert rig.access.renewal_check(rig.user, LEASE) is None
    assert rig.access.put_refusal(rig.root, Put(b"x", lease=LEASE)) is None
    assert rig.access.renewal_check(rig.user, LEASE) is not None


def test_a_question_that_only_reads_is_not_remembered(rig: AccessRig) -> None:
    rig.store.grant_permission("role", Permission(WRITE, b"r", b"s"))
    check = rig.access.listing_check(rig.user)
    assert check is not None
    rig.access.may_renew(check, LEASE, KNOWN_KEYS_MIN)
    assert rig.access.renewal_check(rig.user, LEASE) is not None


def test_so_many_leases_are_remembered_and_no_more() -> None:
    known = KnownLeases()
    rights = Rights(False, Ranges([]), Ranges([]))
    for lease_id in range(KNOWN_LEASES_MAX):
        known.remember(lease_id, "u", rights)
    assert known.rights(0, "u") is rights
    known.remember(KNOWN_LEASES_MAX, "u", rights)
    assert known.rights(0, "u") is None
    assert known.rights(KNOWN_LEASES_MAX, "u") is rights


def test_rights_that_are_none_are_not_remembered(rig: AccessRig) -> None:
    error: AuthError = PermissionDeniedError()
    known = KnownLeases()
    check = KeyCheck(rig.store, "u", error, writes=True)
    check.passed(known, LEASE, KNOWN_KEYS_MIN)
    assert known.rights(LEASE, "u") is None
