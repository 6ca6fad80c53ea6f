"""The Snapshot call of one member, message by message as real etcd's, and what it leaves behind."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from etcdtw.rpc.maintenance.snapshot import CHUNK_SIZE, STREAMS_MAX
from etcdtw.wire import etcdserverpb as pb
from tests.support.cluster_processes import wait_for
from tests.support.etcd_client import EtcdClient
from tests.support.etcdctl import Etcdctl
from tests.support.etcdutl import snapshot_restore, snapshot_status
from tests.support.judges import judge_line
from tests.support.processes import RunningMember

pytestmark = pytest.mark.integration

VALUE = bytes(range(256)) * 256
LARGE_COUNT = 200  # values: more than any window and queue on the way
WITHIN_S = 15.0


def fill(client: EtcdClient, count: int) -> None:
    for i in range(count):
        client.put(b"k%d" % i, VALUE)
    client.invoke("delete_range", key=b"k1")
    client.invoke("compact", revision=count // 2)
    client.put(b"leased", b"v", lease=client.invoke("lease_grant", TTL=1000).ID)


@pytest.mark.parametrize(
    ("program", "line"), [("etcd", ""), ("etcdtw", ""), ("etcdtw", "3.5")], ids=str
)
def test_chunks_count_down_and_end_with_the_digest_of_all(program: str, line: str) -> None:
    flags = [f"--compat-version={line}"] if line else []
    with RunningMember(program, flags=flags) as member, EtcdClient(member.endpoint) as client:
        fill(client, 10)
        *chunks, seal = list(client.snapshot())
    size = sum([len(one.blob) for one in chunks])
    assert {len(one.blob) for one in chunks[:-1]} == {CHUNK_SIZE}
    left = size
    for one in chunks:
        left -= len(one.blob)
        assert one.remaining_bytes == left
    digest = hashlib.sha256(b"".join([one.blob for one in chunks])).digest()
    assert (seal.blob, seal.remaining_bytes) == (digest, 0)
    # No header, and no version up to 3.5.
    judged = judge_line() if program == "etcd" else "3.7.0"
    version = "" if line or judged == "3.5.0" else judged
    assert {(one.HasField("header"), one.version) for one in (*chunks, seal)} == {(False, version)}


def hash_kv(client: EtcdClient, revision: int) -> tuple[int, int]:
    answer = client.call("hash_kv", pb.HashKVRequest(revision=revision))
    return answer.hash, answer.compact_revision


@pytest.mark.parametrize("line", ["3.5", "3.7"])
def test_real_etcd_lives_on_the_snapshot_of_a_single_member(line: str, tmp_path: Path) -> None:
    file = tmp_path / "saved.db"
    with RunningMember("etcdtw", flags=[f"--compat-version={line}"]) as member:
        with EtcdClient(member.endpoint) as client:
            fill(client, 100)
            revision = client.range(b"leased").header.revision
            expected = hash_kv(client, revision)
            kvs = list(client.range(b"\0", b"\0").kvs)
        assert "Snapshot saved" in Etcdctl(member).output("snapshot", "save", str(file))
        exports = member.data_dir / "member" / "snapshots"
        wait_for(lambda: not list(exports.glob("*.out.db")), 5.0, "the export is deleted")
        assert "Traceback" not in member.stderr()
    assert snapshot_status(file)[1] == revision
    real = RunningMember("etcd", data_dir=tmp_path / "data")
    snapshot_restore(file, real.data_dir, f"http://127.0.0.1:{real.peer_port}")
    with real, EtcdClient(real.endpoint) as client:
        assert list(client.range(b"\0", b"\0").kvs) == kvs
        assert hash_kv(client, revision) == expected


@pytest.fixture
def large() -> Iterator[RunningMember]:
    with RunningMember("etcdtw") as member:
        with EtcdClient(member.endpoint) as client:
            fill(client, LARGE_COUNT)
        yield member


def begun(client: EtcdClient) -> Any:
    """Return a snapshot of which one message was read."""
    call = client.snapshot(60.0)
    assert next(call).remaining_bytes
    return call


def snapshot_files(member: RunningMember) -> int:
    """Count the exports that its processes hold, by name or open without one."""
    found = {str(file) for file in (member.data_dir / "member" / "snapshots").glob("*.out.db")}
    for pid in member.pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(descriptor.readlink())
            except FileNotFoundError:
                continue  # closed meanwhile
            if ".out.db" in target:
                found.add(target.removesuffix(" (deleted)"))
    return len(found)


def test_streams_nobody_reads_are_bounded_and_leave_nothing(large: RunningMember) -> None:
    # Else a busy machine's client takes a whole snapshot that nobody reads.
    slow = EtcdClient(large.endpoint, reads_ahead=False)
    with slow, EtcdClient(large.endpoint) as client:
        calls = [begun(slow) for _ in range(STREAMS_MAX)]
        with pytest.raises(grpc.RpcError) as refused:
            begun(client)
        assert refused.value.details() == "etcdserver: too many requests"
        assert snapshot_files(large) == STREAMS_MAX
        client.put(b"k", b"served meanwhile")
        for call in calls:
            call.cancel()
        wait_for(lambda: not snapshot_files(large), WITHIN_S, "the files to go")
        time.sleep(0.1)  # the place of a stream is free right after its file is gone
        *chunks, seal = list(client.snapshot(60.0))
        digest = hashlib.sha256(b"".join([one.blob for one in chunks])).digest()
        assert seal.blob == digest
    assert "Traceback" not in large.stderr()


def test_a_call_past_its_deadline_leaves_nothing(large: RunningMember) -> None:
    with EtcdClient(large.endpoint, reads_ahead=False) as client:
        call = client.snapshot(2.0)
        assert next(call).remaining_bytes
        time.sleep(2.0)
        with pytest.raises(grpc.RpcError) as ended:
            list(call)
        assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        wait_for(lambda: not snapshot_files(large), WITHIN_S, "the file to go")
