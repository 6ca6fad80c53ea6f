"""What a Raft snapshot carries beside the database: the old API's store, as JSON.

Members up to 3.6 read it when they receive a snapshot; up to 3.5 it, and not the database,
says who the members are.  Only the cluster's own keys are in it.

    /0/members/<hex id>/raftAttributes   {"peerURLs":[..],"isLearner":true}
    /0/members/<hex id>/attributes       {"name":..,"clientURLs":[..]}
    /0/removed_members/<hex id>
    /0/version                           3.5.0
    /1                                   the users' keys: none

Source: etcd's peer contract, section 7.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from etcdtw.cluster.ids import id_text, parse_id
from etcdtw.cluster.member import (
    Member,
    MemberFormatError,
    decode_attributes,
    decode_member,
    encode_json,
)
from etcdtw.cluster.version import V3_ENTRIES_MIN, Version, VersionError, parse_version

STORE_VERSION: Final = 2
_NEVER: Final = "0001-01-01T00:00:00Z"
_Node = dict[str, Any]


class V2StoreError(ValueError):
    """The octets are not such a store."""


class V2Store(NamedTuple):
    """Who is in the cluster: members and removed ids ascending; the version if decided."""

    members: tuple[Member, ...]
    removed_ids: tuple[int, ...]
    version: Version | None

    @property
    def is_authority(self) -> bool:
        """Whether the leader that sent it keeps the membership here and not in its buckets."""
        return self.version is None or self.version < V3_ENTRIES_MIN


def encode_v2_store(store: V2Store, index: int = 0) -> bytes:
    """Return a snapshot's data.  ``index`` counts the store's changes; nobody relies on it."""
    members = {
        id_text(one.member_id): _directory(
            f"/0/members/{id_text(one.member_id)}", _member_leaves(one)
        )
        for one in store.members
    }
    removed = {
        id_text(one): _leaf(f"/0/removed_members/{id_text(one)}", "") for one in store.removed_ids
    }
    cluster = {"members": _directory("/0/members", members)}
    if removed:
        cluster["removed_members"] = _directory("/0/removed_members", removed)
    if store.version is not None:
        cluster["version"] = _leaf("/0/version", str(store.version))
    root = _directory("/", {"0": _directory("/0", cluster), "1": _directory("/1", {})})
    return encode_json({"Root": root, "CurrentIndex": index, "CurrentVersion": STORE_VERSION})


def _member_leaves(member: Member) -> _Node:
    path = f"/0/members/{id_text(member.member_id)}"
    raft: dict[str, object] = {"peerURLs": list(member.peer_urls)}
    if member.is_learner:
        raft["isLearner"] = True
    leaves = {"raftAttributes": _leaf(f"{path}/raftAttributes", encode_json(raft).decode())}
    if member.name or member.client_urls:
        attributes = {"name": member.name, "clientURLs": list(member.client_urls)}
        leaves["attributes"] = _leaf(f"{path}/attributes", encode_json(attributes).decode())
    return leaves


def _directory(path: str, children: _Node) -> _Node:
    return _node(path, "", children)


def _leaf(path: str, value: str) -> _Node:
    return _node(path, value, None)


def _node(path: str, value: str, children: _Node | None) -> _Node:
    return {
        "Path": path,
        "CreatedIndex": 0,
        "ModifiedIndex": 0,
        "ExpireTime": _NEVER,
        "Value": value,
        "Children": children,
    }


def decode_v2_store(data: bytes) -> V2Store:
    """Return what a snapshot's data says of the cluster.  Raises `V2StoreError`.

    Keys of other kinds are passed over.
    """
    try:
        record: Any = json.loads(data)
        cluster = dict(_children(_child(_child(record, "Root"), "Children").get("0")))
        members = [
            _member(parse_id(name), dict(_children(node)))
            for name, node in _children(cluster.get("members"))
        ]
        removed = [parse_id(name) for name, _ in _children(cluster.get("removed_members"))]
        text = _value(cluster.get("version"))
        version = parse_version(text) if text else None
    except (ValueError, RecursionError, VersionError, MemberFormatError) as error:
        raise V2StoreError(f"the store in the snapshot is damaged: {error}") from error
    members.sort(key=lambda one: one.member_id)
    return V2Store(tuple(members), tuple(sorted(removed)), version)


def _member(member_id: int, leaves: Mapping[str, _Node]) -> Member:
    raft = _value(leaves.get("raftAttributes"))
    if not raft:
        raise V2StoreError(f"member {id_text(member_id)} has no raftAttributes")
    described, _ = decode_member(raft.encode())
    name, client_urls = "", tuple[str, ...]()
    attributes = _value(leaves.get("attributes"))
    if attributes:
        name, client_urls = decode_attributes(attributes.encode())
    return Member(
        member_id=member_id,
        peer_urls=described.peer_urls,
        is_learner=described.is_learner,
        name=name,
        client_urls=client_urls,
    )


def _child(node: Any, key: str) -> _Node:
    found = node.get(key) if isinstance(node, dict) else None
    if not isinstance(found, dict):
        raise V2StoreError(f"{key} is missing")
    return found


def _children(node: Any) -> Iterator[tuple[str, _Node]]:
    children = node.get("Children") if isinstance(node, dict) else None
    if isinstance(children, dict):
        for name, child in children.items():
            if not isinstance(child, dict):
                raise V2StoreError(f"{name} is no node")
            yield name, child


def _value(node: _Node | None) -> str:
    value = node.get("Value") if node is not None else ""
    return value if isinstance(value, str) else ""
