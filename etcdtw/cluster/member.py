"""One member, and its JSON form in etcd's buckets and conf changes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from etcdtw.cluster.ids import ID_MAX


class MemberFormatError(ValueError):
    """The octets are not the JSON of a member."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """Who a member is.  An empty name: it has not started yet."""

    member_id: int
    peer_urls: tuple[str, ...]
    is_learner: bool = False
    name: str = ""
    client_urls: tuple[str, ...] = ()

    @property
    def is_started(self) -> bool:
        return bool(self.name)

    def with_attributes(self, name: str, client_urls: tuple[str, ...]) -> Member:
        return replace(self, name=name, client_urls=client_urls)

    def with_peer_urls(self, peer_urls: tuple[str, ...]) -> Member:
        return replace(self, peer_urls=peer_urls)

    def promoted(self) -> Member:
        return replace(self, is_learner=False)


def encode_json(value: object) -> bytes:
    """Return JSON octet for octet as Go's encoder writes it (no spaces, ``<``, ``>``, ``&``
    and the two line separators as escapes), since members compare such octets.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


def encode_member(member: Member) -> bytes:
    """Return the row of the ``members`` bucket, which is also a conf change's context."""
    return encode_json(record_of(member))


def record_of(member: Member) -> dict[str, object]:
    """Return the member as JSON's object; what is empty is left out but for the peer URLs."""
    record: dict[str, object] = {
        "id": member.member_id,
        "peerURLs": list(member.peer_urls) or None,
    }
    if member.is_learner:
        record["isLearner"] = True
    if member.name:
        record["name"] = member.name
    if member.client_urls:
        record["clientURLs"] = list(member.client_urls)
    return record


def encode_promotion(member_id: int) -> bytes:
    """Return the context of the conf change that makes a learner a voter."""
    return encode_json({"id": member_id, "peerURLs": None, "isPromote": True})


def decode_member(data: bytes) -> tuple[Member, bool]:
    """Return the member and whether the context asks for a promotion.

    Unknown keys are ignored.  Raises `MemberFormatError`.
    """
    try:
        record: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MemberFormatError(f"not JSON: {error}") from error
    return member_of(record), _typed(record, "isPromote", bool, False)


def member_of(record: Any) -> Member:
    """Return the member that parsed JSON describes.  Raises `MemberFormatError`."""
    if not isinstance(record, dict):
        raise MemberFormatError("not a JSON object")
    member_id = _typed(record, "id", int, 0)
    if not 0 <= member_id <= ID_MAX:
        raise MemberFormatError(f"id is {member_id}")
    return Member(
        member_id=member_id,
        peer_urls=_texts(record, "peerURLs"),
        is_learner=_typed(record, "isLearner", bool, False),
        name=_typed(record, "name", str, ""),
        client_urls=_texts(record, "clientURLs"),
    )


def decode_attributes(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Return name and client URLs from their JSON.  Raises `MemberFormatError`."""
    member, _ = decode_member(data)
    return member.name, member.client_urls


def _typed(record: dict[str, Any], key: str, kind: type, absent: Any) -> Any:
    value = record.get(key)
    if value is None:
        return absent
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise MemberFormatError(f"{key} is {value!r}")
    return value


def _texts(record: dict[str, Any], key: str) -> tuple[str, ...]:
    value = _typed(record, key, list, [])
    if not all(isinstance(one, str) for one in value):
        raise MemberFormatError(f"{key} is {value!r}")
    return tuple(value)
