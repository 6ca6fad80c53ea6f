"""How often one may be wrong."""

from __future__ import annotations

from etcdtw.rpc.auth.attempts import (
    ADDRESS_FAILURES_MAX,
    ADDRESS_FAILURES_PER_S,
    PAIR_FAILURES_MAX,
    PAIR_FAILURES_PER_S,
    Attempts,
)


def test_an_address_may_be_wrong_so_often_about_one_user() -> None:
    attempts = Attempts()
    for _ in range(PAIR_FAILURES_MAX - 1):
        attempts.failed("a", "ann", 0.0)
    assert attempts.may_try("a", "ann", 0.0)
    attempts.failed("a", "ann", 0.0)
    assert not attempts.may_try("a", "ann", 0.0)
    assert attempts.may_try("a", "bob", 0.0)
    assert attempts.may_try("b", "ann", 0.0)
    assert attempts.may_try("a", "ann", 1 / PAIR_FAILURES_PER_S)


def test_and_so_often_about_all_of_them() -> None:
    attempts = Attempts()
    for i in range(ADDRESS_FAILURES_MAX):
        assert attempts.may_try("a", f"u{i}", 0.0)
        attempts.failed("a", f"u{i}", 0.0)
    assert not attempts.may_try("a", "ann", 0.0)
    assert attempts.may_try("b", "ann", 0.0)
    assert attempts.may_try("a", "ann", 1 / ADDRESS_FAILURES_PER_S)


def test_those_who_failed_longest_ago_are_forgotten() -> None:
    attempts = Attempts(kept_max=2)
    for _ in range(PAIR_FAILURES_MAX):
        attempts.failed("a", "ann", 0.0)
    attempts.failed("b", "ann", 0.0)
    assert not attempts.may_try("a", "ann", 0.0)
    attempts.failed("c", "ann", 0.0)
    assert attempts.may_try("a", "ann", 0.0)
