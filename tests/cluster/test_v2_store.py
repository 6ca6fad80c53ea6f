"""The store of the old API that travels in snapshots."""

from __future__ import annotations

import json

import pytest

from etcdtw.cluster.member import Member
from etcdtw.cluster.v2_store import V2Store, V2StoreError, decode_v2_store, encode_v2_store
from etcdtw.cluster.version import Version

VOTER = Member(member_id=0xA, peer_urls=("http://a:1",), name="a", client_urls=("http://a:2",))
LEARNER = Member(member_id=0xB, peer_urls=("http://b:1", "http://b:2"), is_learner=True)
STORE = V2Store((VOTER, LEARNER), (0xC, 2**64 - 3), Version(3, 5, 0))


@pytest.mark.parametrize("store", [STORE, V2Store((), (), None), V2Store((VOTER,), (), None)])
def test_store_comes_back(store: V2Store) -> None:
    assert decode_v2_store(encode_v2_store(store)) == store


def test_store_has_etcds_keys_and_no_others() -> None:
    def leaves(node: dict) -> dict[str, str]:  # type: ignore[type-arg]
        assert node["ExpireTime"] == "0001-01-01T00:00:00Z"
        if node["Children"] is None:
            return {node["Path"]: node["Value"]}
        return {
            path: value
            for child in node["Children"].values()
            for path, value in leaves(child).items()
        }

    record = json.loads(encode_v2_store(STORE, 7))
    assert (record["CurrentIndex"], record["CurrentVersion"]) == (7, 2)
    assert sorted(record["Root"]["Children"]) == ["0", "1"]
    assert record["Root"]["Children"]["1"]["Children"] == {}
    assert leaves(record["Root"]) == {
        "/0/members/a/raftAttributes": '{"peerURLs":["http://a:1"]}',
        "/0/members/a/attributes": '{"name":"a","clientURLs":["http://a:2"]}',
        "/0/members/b/raftAttributes": '{"peerURLs":["http://b:1","http://b:2"],"isLearner":true}',
        "/0/removed_members/c": "",
        "/0/removed_members/fffffffffffffffd": "",
        "/0/version": "3.5.0",
    }


def test_up_to_3_5_the_store_says_who_the_members_are() -> None:
    for version, is_authority in (
        (None, True),
        (Version(3, 4, 0), True),
        (Version(3, 5, 0), True),
        (Version(3, 6, 0), False),
        (Version(3, 7, 0), False),
    ):
        assert V2Store((), (), version).is_authority is is_authority


def test_what_etcd_keeps_beside_is_passed_over() -> None:
    record = json.loads(encode_v2_store(STORE))
    record["WatcherHub"] = {"EventHistory": {"Queue": {}}}
    record["Stats"] = {"getsFail": 3}
    record["Root"]["Children"]["2"] = {"Path": "/2", "Value": "", "Children": {}}
    assert decode_v2_store(json.dumps(record).encode()) == STORE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"Root":1}',
        b'{"Root":{"Children":{"0":{"Children":{"version":{"Value":"three"}}}}}}',
        b'{"Root":{"Children":{"0":{"Children":{"members":{"Children":{"zz":{}}}}}}}}',
        b'{"Root":{"Children":{"0":{"Children":{"members":{"Children":{"a":{}}}}}}}}',
        b'{"Root":{"Children":{"0":{"Children":{"members":{"Children":{"a":1}}}}}}}',
        b'{"Root":{"Children":{"0":{"Children":{"members":{"Children":{"a":{"Children":'
        b'{"raftAttributes":{"Value":"[]"}}}}}}}}}}',
    ],
)
def test_damaged_store_is_refused(data: bytes) -> None:
    with pytest.raises(V2StoreError):
        decode_v2_store(data)


def test_store_without_the_clusters_keys_is_empty() -> None:
    assert decode_v2_store(b'{"Root":{"Children":{}}}') == V2Store((), (), None)
