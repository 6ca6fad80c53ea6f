"""Who is corrupt: every shape of three and five members' hashes."""

from __future__ import annotations

import json

import pytest

from etcdtw.cluster.divergence import (
    KeyHash,
    Verdict,
    contradicting,
    decode_hash_page,
    judge,
    judge_cut,
    revision_to_ask,
)

OWN = 1


def told(text: str) -> dict[int, KeyHash]:
    """Hashes of the members 1, 2 ...: a letter each; ``-`` is silent, ``?`` compacted elsewhere."""
    return {
        member_id: KeyHash(ord(letter), 3 if letter == "?" else 5, 9, 9)
        for member_id, letter in enumerate(text, 1)
        if letter != "-"
    }


@pytest.mark.parametrize(
    ("hashes", "accused", "compared"),
    [
        ("aaa", (), (2, 3)),
        ("aab", (3,), (2, 3)),
        ("aba", (2,), (2, 3)),
        ("abb", (1,), (2, 3)),  # the leader itself
        ("abc", (0,), (2, 3)),
        ("aa-", (), (2,)),
        ("ab-", (0,), (2,)),
        ("a--", (), ()),
        ("aa?", (), (2,)),
        ("ab?", (0,), (2,)),
        ("a??", (), ()),
        ("ab", (0,), (2,)),
        ("aabab", (3, 5), (2, 3, 4, 5)),
        ("aabac", (3, 5), (2, 3, 4, 5)),
        ("abbba", (1, 5), (2, 3, 4, 5)),
        ("aabbc", (0,), (2, 3, 4, 5)),
        ("aab--", (0,), (2, 3)),
        ("aaab-", (4,), (2, 3, 4)),
        ("aaaa", (), (2, 3, 4)),
        ("aabb", (0,), (2, 3, 4)),
    ],
)
def test_whoever_is_not_with_a_majority_of_all_members_is_accused(
    hashes: str, accused: tuple[int, ...], compared: tuple[int, ...]
) -> None:
    answers = told(hashes)
    own = answers.pop(OWN)
    assert judge(OWN, own, answers, len(hashes)) == Verdict(accused, compared)


@pytest.mark.parametrize(
    ("hashes", "against"),
    [
        ("aaa", ()),
        ("aab", ()),  # a majority is with it
        ("abb", (2, 3)),
        ("abc", (2, 3)),
        ("ab-", (2,)),
        ("ab?", (2,)),
        ("a--", ()),
        ("a??", ()),
        ("ab", (2,)),
        ("aabb-", (3, 4)),
        ("aaabb", ()),
    ],
)
def test_a_contradicted_member_serves_only_with_a_majority_behind_it(
    hashes: str, against: tuple[int, ...]
) -> None:
    answers = told(hashes)
    own = answers.pop(OWN)
    assert contradicting(own, answers, len(hashes)) == against


def test_hashes_of_different_revisions_say_nothing() -> None:
    own = KeyHash(1, 5, 9, 9)
    answers = {2: KeyHash(2, 5, 9, 8), 3: KeyHash(2, 5, 9, 0)}
    assert judge(OWN, own, answers, 3) == Verdict((), ())
    assert contradicting(own, answers, 3) == ()


def cut(first: KeyHash, second: KeyHash, *answers: KeyHash) -> tuple[int, ...]:
    return judge_cut(OWN, first, second, dict(enumerate(answers, 2)), 3).accused


def test_cut_accuses_who_is_ahead_of_what_a_linearizable_read_has_seen() -> None:
    first, second = KeyHash(1, 5, 9, 9), KeyHash(7, 6, 12, 12)
    equal = KeyHash(1, 5, 12, 9)
    assert cut(first, second, equal, equal) == ()
    assert cut(first, second, equal, equal._replace(revision=13)) == (3,)
    assert cut(first, second, equal._replace(compact_revision=7), equal) == (2,)
    assert cut(first, second, equal._replace(compact_revision=6), equal) == ()
    assert cut(first, second, equal._replace(value=2), equal._replace(revision=13)) == (2, 3)


def test_leader_that_contradicts_itself_is_accused() -> None:
    first = KeyHash(1, 5, 9, 9)
    equal = KeyHash(1, 5, 9, 9)
    assert cut(first, first._replace(value=2), equal, equal) == (OWN,)
    assert cut(first, first._replace(value=2, hash_revision=10), equal, equal) == ()
    assert cut(first, first._replace(value=2, compact_revision=6), equal, equal) == ()


def test_at_the_revision_of_a_compaction_the_newest_hash_is_asked_for() -> None:
    assert revision_to_ask(KeyHash(1, 5, 9, 9)) == 9
    assert revision_to_ask(KeyHash(1, -1, 9, 9)) == 9
    assert revision_to_ask(KeyHash(1, 9, 9, 9)) == 0


def test_pages_of_each_line_are_read() -> None:
    old = b'{"header":{"revision":7},"hash":4294967295,"compact_revision":-1}\n'
    assert decode_hash_page(old, 6) == KeyHash(4294967295, -1, 7, 6)
    assert decode_hash_page(old, 0).hash_revision == 0
    new = json.dumps({"header": {"revision": 7}, "compact_revision": 3, "hash_revision": 5})
    assert decode_hash_page(new.encode(), 6) == KeyHash(0, 3, 7, 5)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"7",
        b'{"hash":"7"}',
        b'{"hash":1.5}',
        b'{"hash":true}',
        b'{"hash":-1}',
        b'{"hash":4294967296}',
        b'{"header":7}',
        b'{"header":{"revision":null}}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_anything_else_is_no_page_of_a_hash(body: bytes) -> None:
    with pytest.raises(ValueError, match="no page of a hash"):
        decode_hash_page(body, 1)
