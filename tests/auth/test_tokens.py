"""Simple tokens: how long they live, and what ends them."""

from __future__ import annotations

import pytest

from etcdtw.auth.tokens import RENEWED_MS, SimpleTokens, index_of, token_text


def test_a_token_lives_until_it_was_not_used_for_its_time() -> None:
    tokens = SimpleTokens(5000)
    tokens.assign("a.1", "alice", 0)
    assert tokens.user_of("a.1", 5000) == "alice"
    assert tokens.user_of("a.1", 10_000 + RENEWED_MS) == "alice"
    assert tokens.user_of("a.1", 15_000 + 2 * RENEWED_MS + 1) is None
    assert tokens.user_of("a.1", 0) is None
    assert len(tokens) == 0


def test_what_is_over_goes_when_another_begins() -> None:
    tokens = SimpleTokens(1000)
    tokens.assign("a.1", "alice", 0)
    tokens.assign("b.2", "bob", 1000 + RENEWED_MS + 1)
    assert len(tokens) == 1


def test_past_the_bound_the_one_used_longest_ago_is_forgotten() -> None:
    tokens = SimpleTokens(10_000, count_max=2)
    tokens.assign("a.1", "alice", 0)
    tokens.assign("b.2", "bob", 0)
    assert tokens.user_of("a.1", 2000) == "alice"
    tokens.assign("c.3", "carol", 2000)
    assert [tokens.user_of(t, 2000) for t in ("a.1", "b.2", "c.3")] == ["alice", None, "carol"]


def test_a_user_who_is_gone_takes_all_his_tokens_along() -> None:
    tokens = SimpleTokens(10_000)
    tokens.assign("a.1", "alice", 0)
    tokens.assign("b.2", "bob", 0)
    tokens.assign("c.3", "alice", 0)
    tokens.forget_user("alice")
    assert [tokens.user_of(t, 0) for t in ("a.1", "b.2", "c.3")] == [None, "bob", None]
    tokens.clear()
    assert tokens.user_of("b.2", 0) is None


@pytest.mark.parametrize(
    ("token", "index"),
    [
        ("abc.17", 17),
        ("abc.0017", 17),
        (".0", 0),
        ("abc.18446744073709551615", (1 << 64) - 1),
        ("abc.18446744073709551616", None),
        ("abc." + "0" * 9000 + "1", 1),
        ("abc." + "1" * 9000, None),
        ("abc", None),
        ("abc.", None),
        ("abc.+1", None),
        ("abc.1.2", None),
        ("abc.\u0661", None),
        ("", None),
    ],
)
def test_a_token_names_the_index_it_waits_for(token: str, index: int | None) -> None:
    assert index_of(token) == index


def test_a_token_is_letters_and_index() -> None:
    assert token_text("abc", 7) == "abc.7"
