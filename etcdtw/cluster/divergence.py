"""Whether members hold the same keys, judged from the hashes that they tell.

Two hashes say something about each other only when both are of the same revision and the same
compaction.  Who differs from a majority of all members is corrupt; where no hash has a majority
something is corrupt, and nobody knows who (`UNKNOWN_MEMBER`).
Source: etcd's peer contract, section 8.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

UNKNOWN_MEMBER: Final = 0
"""etcd's id in an alarm whose member cannot be named."""
HASH_END: Final = 1 << 32


class KeyHash(NamedTuple):
    """What a member says of its keys at a revision."""

    value: int
    compact_revision: int
    revision: int
    """The member's newest one when it answered."""
    hash_revision: int
    """The one that was hashed; 0: not known."""


class Verdict(NamedTuple):
    """What a comparison says of the members, by ascending id."""

    accused: tuple[int, ...]
    """Whom to raise an alarm for; nobody if all that was compared is equal."""
    compared: tuple[int, ...]
    """The peers whose hash could be compared."""


def decode_hash_page(body: bytes, asked: int) -> KeyHash:
    """Return what ``/members/hashkv`` answered when it was asked for a revision (0: its newest).

    Members before 3.6 do not say which one they hashed.  Raises ValueError when it is no such
    page.
    """
    try:
        record: Any = json.loads(body)
        header = record.get("header") or {}
        numbers = (
            record.get("hash", 0),
            record.get("compact_revision", 0),
            header.get("revision", 0),
            record.get("hash_revision", asked),
        )
    except (ValueError, AttributeError, RecursionError):
        raise ValueError(f"{body[:64]!r} is no page of a hash") from None
    if not all(type(number) is int for number in numbers) or not 0 <= numbers[0] < HASH_END:
        raise ValueError(f"{body[:64]!r} is no page of a hash")
    return KeyHash(*numbers)


def revision_to_ask(own: KeyHash) -> int:
    """Return what to ask peers for, to compare their hash with ``own``; 0: their newest.

    At the revision of a compaction they answer what that one found: nothing like ``own``.
    """
    return 0 if own.hash_revision == own.compact_revision else own.hash_revision


def _is_comparable(own: KeyHash, other: KeyHash) -> bool:
    return (own.hash_revision, own.compact_revision) == (
        other.hash_revision,
        other.compact_revision,
    )


def judge(own_id: int, own: KeyHash, answers: Mapping[int, KeyHash], member_count: int) -> Verdict:
    """Compare hashes of one revision: this member's and its peers'."""
    groups: dict[int, list[int]] = {own.value: [own_id]}
    compared = []
    for member_id, answer in sorted(answers.items()):
        if _is_comparable(own, answer):
            groups.setdefault(answer.value, []).append(member_id)
            compared.append(member_id)
    if len(groups) == 1:
        return Verdict((), tuple(compared))
    quorum = member_count // 2 + 1
    if all(len(members) < quorum for members in groups.values()):
        return Verdict((UNKNOWN_MEMBER,), tuple(compared))
    accused = [one for members in groups.values() if len(members) < quorum for one in members]
    return Verdict(tuple(sorted(accused)), tuple(compared))


def judge_cut(
    own_id: int, first: KeyHash, second: KeyHash, answers: Mapping[int, KeyHash], member_count: int
) -> Verdict:
    """Compare hashes of the leader's revision ``first``, told before it read ``second``.

    Between the two was a linearizable read: whatever a peer had when it answered, the leader
    has at ``second``.
    """
    if _is_comparable(first, second) and first.value != second.value:
        return Verdict((own_id,), ())  # it does not even agree with itself
    ahead = [
        member_id
        for member_id, answer in answers.items()
        if answer.revision > second.revision or answer.compact_revision > second.compact_revision
    ]
    verdict = judge(own_id, first, answers, member_count)
    if not ahead:
        return verdict
    return Verdict(tuple(sorted({*verdict.accused, *ahead})), verdict.compared)


def contradicting(
    own: KeyHash, answers: Mapping[int, KeyHash], member_count: int
) -> tuple[int, ...]:
    """Return the peers for whose contradiction a member must not serve, none if it may.

    One contradiction is enough, as in etcd, unless a majority agrees with this member.
    """
    comparable = {
        member_id: answer.value
        for member_id, answer in sorted(answers.items())
        if _is_comparable(own, answer)
    }
    differing = tuple(one for one, value in comparable.items() if value != own.value)
    agreeing = 1 + len(comparable) - len(differing)
    return () if agreeing >= member_count // 2 + 1 else differing
