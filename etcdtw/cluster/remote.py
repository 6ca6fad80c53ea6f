"""What members tell each other over HTTP before Raft knows them: ``/members``, ``/version``.

Whoever fetches a body bounds its size; here it is only read.  Source: etcd's peer contract,
section 3.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from etcdtw.cluster.member import Member, MemberFormatError, encode_json, member_of, record_of
from etcdtw.cluster.version import (
    STORAGE_VERSION_MIN,
    Version,
    VersionError,
    parse_version,
    storage_version,
)


def encode_member_list(members: Iterable[Member]) -> bytes:
    """Return the body of ``/members`` and of an answered promotion: by ascending id."""
    ordered = sorted(members, key=lambda one: one.member_id)
    return encode_json([record_of(one) for one in ordered]) + b"\n"


def decode_member_list(body: bytes) -> tuple[Member, ...]:
    """Return the members in such a body, by ascending id.  Raises `MemberFormatError`."""
    try:
        records: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MemberFormatError(f"not JSON: {error}") from error
    if not isinstance(records, list):
        raise MemberFormatError("not a JSON array")
    members = {one.member_id: one for one in map(member_of, records)}
    if len(members) != len(records) or 0 in members:
        raise MemberFormatError("an id is zero or comes twice")
    return tuple(members[member_id] for member_id in sorted(members))


def encode_version_page(server: Version, cluster: Version | None) -> bytes:
    """Return the body of ``/version`` on the peer port, with the keys of the server's line."""
    page = {"etcdserver": str(server), "etcdcluster": str(cluster or "not_decided")}
    if server >= STORAGE_VERSION_MIN:
        page["storage"] = str(storage_version(cluster) or "unknown")
    return encode_json(page)


class RemoteVersion(NamedTuple):
    """What a member says in ``/version``; None where it has not decided or says nonsense."""

    server: Version | None
    cluster: Version | None


def decode_version_page(body: bytes) -> RemoteVersion:
    """Return the versions in ``/version``'s body.  Raises ValueError when it is no such page."""
    try:
        record: Any = json.loads(body)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise ValueError(f"{body[:64]!r} is no version page")
    return RemoteVersion(_version(record.get("etcdserver")), _version(record.get("etcdcluster")))


def _version(text: object) -> Version | None:
    try:
        return parse_version(text) if isinstance(text, str) else None
    except VersionError:
        return None
