"""Hashes beside the reactor: Go's rules, places, and what an entry of 3.4 gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bcrypt
import pytest

from etcdtw.apply.errors import TooManyRequestsError
from etcdtw.grpc.caller import Caller
from etcdtw.rpc.auth.passwords import (
    COST_DEFAULT,
    COST_MIN,
    Passwords,
    PasswordTooLongError,
    matches,
    salt_of,
)
from tests.support.recorded_call import RecordedCall


def call_from(address: str) -> RecordedCall:
    call = RecordedCall()
    call.caller = Caller(address, "")
    return call


CALL = call_from("")


class PasswordRig:
    """Threads whose work is done when the test says so."""

    def __init__(self, *, pending_max: int = 10, pending_each_max: int = 10) -> None:
        self.jobs: list[Callable[[], None]] = []
        self.passwords = Passwords(
            self.jobs.append,
            lambda job: job(),
            COST_MIN,
            pending_max=pending_max,
            pending_each_max=pending_each_max,
            workers_max=1,
        )
        self.found: list[Any] = []

    def check(
        self, password: bytes, password_hash: bytes | None, address: str = ""
    ) -> RecordedCall:
        """Compare for a call from ``address``; `found` gets address and answer."""
        call = call_from(address)
        self.passwords.check(
            password,
            password_hash,
            call,
            lambda found: self.found.append((address, found) if address else found),
        )
        return call

    def work(self) -> None:
        self.jobs.pop(0)()


def test_a_hash_is_go_s_and_of_its_password_alone() -> None:
    rig = PasswordRig()
    rig.passwords.hash(b"pw", CALL, rig.found.append)
    rig.work()
    (made,) = rig.found
    assert isinstance(made, bytes)
    assert made.startswith(b"$2a$04$")
    rig.check(b"pw", made)
    rig.check(b"pw2", made)
    rig.work()
    rig.work()
    assert rig.found[1:] == [True, False]


def test_72_octets_count() -> None:
    rig = PasswordRig()
    with pytest.raises(PasswordTooLongError):
        rig.passwords.hash(b"p" * 73, CALL, rig.found.append)
    rig.passwords.hash(b"p" * 72, CALL, rig.found.append)
    rig.work()
    (made,) = rig.found
    assert isinstance(made, bytes)
    assert matches(b"p" * 80, made)
    assert not matches(b"p" * 71, made)


@pytest.mark.parametrize("password_hash", [b"", b"ABC", b"$2a$10$short", b"$9z$10$" + b"." * 53])
def test_what_is_no_hash_is_nobodys(password_hash: bytes) -> None:
    assert not matches(b"", password_hash)


def test_nobodys_password_takes_a_comparison_as_well() -> None:
    rig = PasswordRig()
    rig.check(b"pw", None)
    assert len(rig.jobs) == 1
    rig.work()
    assert rig.found == [False]


def test_so_many_wait_and_no_more() -> None:
    rig = PasswordRig(pending_max=2)
    for _ in range(3):
        rig.check(b"pw", None)
    with pytest.raises(TooManyRequestsError):
        rig.check(b"pw", None)
    assert len(rig.jobs) == 1  # one works, two wait
    for _ in range(3):
        rig.work()
    assert (rig.jobs, rig.found) == ([], [False] * 3)
    rig.check(b"pw", None)


def test_what_an_entry_brings_goes_first_and_has_a_fixed_salt_and_cost() -> None:
    rig = PasswordRig()
    for _ in range(3):
        rig.check(b"pw", None)
    resumed: list[int] = []
    late = rig.passwords.start(b"pw", bytes(range(16)))
    late.when_done(lambda: resumed.append(1))
    rig.work()
    assert late.take() is None
    rig.work()
    assert resumed == [1]
    text = salt_of(bytes(range(16)), COST_DEFAULT)
    assert late.take() == bcrypt.hashpw(b"pw", text)
    late.when_done(lambda: resumed.append(2))
    assert resumed == [1, 2]


def test_a_defect_costs_no_place() -> None:
    rig = PasswordRig()
    rig.passwords._add(lambda: 1 // 0, rig.found.append, CALL)
    rig.check(b"pw", None)
    with pytest.raises(ZeroDivisionError):
        rig.work()
    rig.work()
    assert rig.found == [None, False]


def test_of_one_address_so_many_wait_and_others_come_in_between() -> None:
    rig = PasswordRig(pending_each_max=2)
    for _ in range(3):
        rig.check(b"pw", None, "stranger")
    with pytest.raises(TooManyRequestsError):
        rig.check(b"pw", None, "stranger")
    rig.check(b"pw", None, "friend")
    for _ in range(4):
        rig.work()
    assert [address for address, _ in rig.found] == ["stranger", "stranger", "friend", "stranger"]


def test_nothing_is_compared_for_a_caller_who_is_gone() -> None:
    rig = PasswordRig()
    calls = [rig.check(b"pw", None, f"a{i}") for i in range(3)]
    calls[1].fail(1, "canceled")
    rig.work()
    rig.work()
    assert (rig.jobs, [address for address, _ in rig.found]) == ([], ["a0", "a2"])
