"""Simple tokens: how long they live, and what ends them."""

from __future__ import annotations

import pytest

from etcdtw.auth.tokens import RENEWED_MS, SimpleTokens, index_of, token_text


class TokenRig:
    """Tokens whose clock the test sets."""

    def __init__(self, ttl_ms: int, count_max: int = 100) -> None:
        self.now_ms = 0
        self.tokens = SimpleTokens(ttl_ms, lambda: self.now_ms, count_max)

    def user_of(self, token: str, now_ms: int) -> str | None:
        self.now_ms = now_ms
        asker = self.tokens.asker_of(token.encode(), 7)
        assert asker is None or asker.auth_revision == 7
        return None if asker is None else asker.user


def test_a_token_lives_until_it_was_not_used_for_its_time() -> None:
    rig = TokenRig(5000)
    rig.tokens.assigned("a.1", "alice")
    assert rig.user_of("a.1", 5000) == "alice"
    assert rig.user_of("a.1", 10_000 + RENEWED_MS) == "alice"
    assert rig.user_of("a.1", 15_000 + 2 * RENEWED_MS + 1) is None
    assert rig.user_of("a.1", 0) is None
    assert len(rig.tokens) == 0


def test_what_is_over_goes_when_another_begins() -> None:
    rig = TokenRig(1000)
    rig.tokens.assigned("a.1", "alice")
    rig.now_ms = 1000 + RENEWED_MS + 1
    rig.tokens.assigned("b.2", "bob")
    assert len(rig.tokens) == 1


def test_past_the_bound_the_one_used_longest_ago_is_forgotten() -> None:
    rig = TokenRig(10_000, count_max=2)
    rig.tokens.assigned("a.1", "alice")
    rig.tokens.assigned("b.2", "bob")
    assert rig.user_of("a.1", 2000) == "alice"
    rig.tokens.assigned("c.3", "carol")
    assert [rig.user_of(t, 2000) for t in ("a.1", "b.2", "c.3")] == ["alice", None, "carol"]


def test_a_user_who_is_gone_takes_all_his_tokens_along() -> None:
    rig = TokenRig(10_000)
    rig.tokens.assigned("a.1", "alice")
    rig.tokens.assigned("b.2", "bob")
    rig.tokens.assigned("c.3", "alice")
    rig.tokens.user_gone("alice")
    assert [rig.user_of(t, 0) for t in ("a.1", "b.2", "c.3")] == [None, "bob", None]
    rig.tokens.disabled()
    assert rig.user_of("b.2", 0) is None


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
