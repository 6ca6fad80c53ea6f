"""The log that real etcd 3.5.1 wrote, entry by entry through our state machine."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcdtw.apply.alarms import Alarms
from etcdtw.apply.applier import Applier
from etcdtw.apply.entries import FIELD_V2, find_request
from etcdtw.apply.members import Members
from etcdtw.cluster.v2_store import decode_v2_store, encode_v2_store
from etcdtw.lease.lessor import Lessor
from etcdtw.mvcc.store import Store
from etcdtw.raft.entry import ENTRY_NORMAL, Entry
from etcdtw.wire import raftpb
from etcdtw.wire.encode import read_varint
from tests.support.auth_rig import auth_entries
from tests.support.etcdctl import Etcdctl
from tests.support.judges import judge_line, judge_version
from tests.support.model_backend import ModelBackend
from tests.support.processes import RunningMember

pytestmark = pytest.mark.integration

RECORD_OF_AN_ENTRY = 2


def records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield type and data of each record of a WAL file: length, type, CRC, data, padding."""
    octets = path.read_bytes()
    position = 0
    while position + 8 <= len(octets):
        (frame,) = struct.unpack_from("<q", octets, position)
        position += 8
        size = frame & (1 << 56) - 1
        if size == 0:
            return
        record = octets[position : position + size]
        position += size + (frame >> 56 & 7 if frame < 0 else 0)
        kind, after = read_varint(record, 1)
        _, after = read_varint(record, after + 1)
        if after < len(record):
            length, after = read_varint(record, after + 1)
            yield kind, record[after : after + length]


def entries(data_dir: Path) -> list[Entry]:
    found = []
    for path in sorted((data_dir / "member" / "wal").glob("*.wal")):
        for kind, data in records(path):
            if kind == RECORD_OF_AN_ENTRY:
                entry = raftpb.Entry.FromString(data)
                found.append(Entry(entry.Term, entry.Index, int(entry.Type), entry.Data))
    return found


def work(etcdctl: Etcdctl) -> int:
    """Put every kind of entry into the log; return the hash of the revisions."""
    for i in range(20):
        etcdctl.output("put", f"key{i}", "v" * (i * 40))
    lease = etcdctl.output("lease", "grant", "600").split()[1]
    kept = etcdctl.output("lease", "grant", "500").split()[1]
    etcdctl.output("put", "leased", "x", f"--lease={lease}")
    etcdctl.output("put", "kept", "x", f"--lease={kept}")
    etcdctl.output("lease", "revoke", lease)
    etcdctl.output(
        "txn", stdin='ver("key1") > "0"\n\nput key1 a\ndel key2\nget key3\n\nput no b\n\n'
    )
    etcdctl.output("del", "key5", "key7")
    etcdctl.output("compaction", "10")
    etcdctl.output("alarm", "disarm")
    added = etcdctl.output("member", "add", "l", "--peer-urls=http://127.0.0.1:9", "--learner")
    learner = added.split()[1]
    etcdctl.run("member", "promote", learner)
    etcdctl.output("member", "update", learner, "--peer-urls=http://127.0.0.1:8")
    etcdctl.output("member", "remove", learner)
    etcdctl.output("member", "add", "k", "--peer-urls=http://127.0.0.1:7", "--learner")
    etcdctl.output("put", "last", "one")
    return int(etcdctl.json("endpoint", "hashkv")[0]["HashKV"]["hash"])


def test_real_log_comes_to_the_same_keys_and_members() -> None:
    with RunningMember("etcd") as member:
        etcdctl = Etcdctl(member)
        expected_hash = work(etcdctl)
        listed = etcdctl.json("member", "list")["members"]
        member.stop()
        log = entries(member.data_dir)
    backend = ModelBackend()
    lessor = Lessor(2)
    store = Store(backend, lessor.exists)
    members = Members(backend, 1)
    applier = Applier(
        backend, store, lessor, members, Alarms(backend), auth_entries(backend, store)
    )
    fields = set()
    for entry in log:
        if entry.type != ENTRY_NORMAL:
            members.decide(entry)
        elif entry.data:
            fields.add(find_request(entry.data)[0])
            applier.apply_data(entry.data)
    assert {4, 5, 6, 7, 8, 9} <= fields
    assert (FIELD_V2 in fields) == (judge_version() < (3, 6, 0))
    assert members.cluster_version == judge_line()
    found = {
        one.member_id: (one.name, list(one.peer_urls), list(one.client_urls), one.is_learner)
        for one in members.all()
    }
    assert found == {
        one["ID"]: (
            one.get("name", ""),
            one["peerURLs"],
            one.get("clientURLs", []),
            one.get("isLearner", False),
        )
        for one in listed
    }
    assert len(members.removed_ids) == 1
    hashes: list[int] = []
    backend.hash_kv(store.revision, store.compact_revision, hashes.append)
    assert hashes == [expected_hash]


def test_members_in_a_real_snapshot_are_those_that_real_etcd_lists() -> None:
    with RunningMember("etcd", flags=["--snapshot-count=20"]) as member:
        etcdctl = Etcdctl(member)
        work(etcdctl)
        for i in range(25):
            etcdctl.output("put", "more", str(i))
        listed = etcdctl.json("member", "list")["members"]
        member.stop()
        newest = max((member.data_dir / "member" / "snap").glob("*.snap"))
        # snappb.Snapshot: 1 crc, 2 data.
        octets = newest.read_bytes()
    _, position = read_varint(octets, 1)
    _, position = read_varint(octets, position + 1)
    snapshot = raftpb.Snapshot.FromString(octets[position:])
    store = decode_v2_store(snapshot.data)
    assert store.is_authority == (judge_version() < (3, 6, 0))
    assert str(store.version) == judge_line()
    assert [one.member_id for one in store.members] == sorted(one["ID"] for one in listed)
    learners = [one for one in store.members if one.is_learner]
    assert [one.peer_urls for one in learners] == [("http://127.0.0.1:7",)]
    assert [one.name for one in store.members if not one.is_learner] == ["m1"]
    assert len(store.removed_ids) == 1
    assert decode_v2_store(encode_v2_store(store)) == store
