"""A member whose file was changed behind its back: found by each check, and set aside."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import lmdb
import pytest

from etcdtw.storage.rows.seal import SEALS
from etcdtw.wire import etcdserverpb as pb
from tests.support.cluster_processes import Cluster, ClusterMember, wait_for
from tests.support.etcd_client import RpcFailedError
from tests.support.processes import READY_TIMEOUT_S

pytestmark = [pytest.mark.integration, pytest.mark.long]

DATA_LOSS: Final = 15
FOUND_S: Final = 20.0
KEY: Final = b"number 5"
UNCHECKED: Final = "--feature-gates=InitialCorruptCheck=false"


def bend(member: ClusterMember) -> None:
    """Change the value of one key in the file of a member that does not run."""
    assert not member.is_running
    path = Path(member.data_dir) / "member" / "state"
    with (
        lmdb.open(str(path), max_dbs=32, map_size=1 << 30, lock=False) as env,
        env.begin(write=True) as txn,
    ):
        table = env.open_db(b"key", txn=txn)
        rows = [(stored, record) for stored, record in txn.cursor(table) if KEY in record]
        stored, sealed = rows[-1]
        record = SEALS[b"key"].opened(stored, sealed)
        assert record.count(b"value 5") == 1
        bent = record.replace(b"value 5", b"value X")  # as by a defect: its checksum is right
        txn.put(stored, SEALS[b"key"].closed(stored, bent), db=table)


def fill(cluster: Cluster) -> int:
    """Write some keys, and some twice; return the revision."""
    client = cluster.client(cluster.leader())
    for number in (*range(10), *range(3)):
        client.put(b"number %d" % number, b"value %d" % number)
    return cluster.revision()


@contextmanager
def bent_cluster(*flags: str, compacts_first: bool = False) -> Iterator[tuple[Cluster, Any]]:
    """Three members, the file of a follower changed while it was down; it is down."""
    with Cluster(["etcdtw"] * 3, flags=flags) as cluster:
        revision = fill(cluster)
        if compacts_first:
            cluster.client(cluster.leader()).invoke("compact", revision=revision, physical=True)
        cluster.wait_applied(revision)
        bent = cluster.followers()[0]
        cluster.id_of(bent)
        cluster.stop(bent)
        bend(bent)
        yield cluster, bent


def alarms(cluster: Cluster, member: ClusterMember) -> set[tuple[int, int]]:
    answer = cluster.client(member).invoke("alarm", action=pb.AlarmRequest.GET)
    return {(one.memberID, one.alarm) for one in answer.alarms}


def refusal(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(RpcFailedError) as caught:
        call()
    return caught.value.code, caught.value.text


def page(member: ClusterMember, path: str) -> tuple[int, bytes]:
    link = HTTPConnection("127.0.0.1", member.client_port, timeout=10)
    try:
        link.request("GET", path)
        answer = link.getresponse()
        return answer.status, answer.read()
    finally:
        link.close()


def counted(member: ClusterMember, check: str, result: str) -> int:
    """Return how many comparisons of one kind ended so, as its metrics say."""
    name = f'etcdtw_corruption_checks_total{{check="{check}",result="{result}"}} '
    text = page(member, "/metrics")[1].decode()
    return int(float(text.partition(name)[2].partition("\n")[0]))


@pytest.mark.parametrize("compacts_first", [False, True])
def test_changed_member_does_not_start(compacts_first: bool) -> None:
    with bent_cluster(compacts_first=compacts_first) as (cluster, bent):
        before = len(bent.stderr())
        bent.launch()
        wait_for(lambda: not bent.is_running, READY_TIMEOUT_S, "the changed member ends")
        log = bent.stderr()[before:]
        assert bent.exit_status == 1, log
        assert "found data inconsistency with peers" in log
        assert "ready to serve client requests" not in log
        for member in cluster.serving:
            assert alarms(cluster, member) == set()
        # The others go on, and come through the check themselves.
        other = cluster.followers()[0]
        cluster.stop(other)
        other.launch()
        other.wait_ready(READY_TIMEOUT_S)
        assert "1 of 2 other members could be asked" in other.stderr()
        cluster.client(cluster.leader()).put(b"more", b"more")


@pytest.mark.parametrize(
    ("flags", "compacts"),
    [
        (("--corrupt-check-time=1s",), False),
        (("--compact-hash-check-time=1s",), True),
    ],
)
def test_changed_member_is_found_while_it_runs_and_serves_nobody(
    flags: tuple[str, ...], compacts: bool
) -> None:
    with bent_cluster(UNCHECKED, *flags) as (cluster, bent):
        bent.start(READY_TIMEOUT_S)
        client = cluster.client(bent)
        leader = cluster.leader()
        if compacts:
            assert client.range(KEY).kvs
            cluster.client(leader).invoke("compact", revision=cluster.revision())
        wait_for(lambda: bool(alarms(cluster, leader)), FOUND_S, "an alarm is raised")
        assert alarms(cluster, leader) == {(bent.member_id, pb.CORRUPT)}
        corrupt = (DATA_LOSS, "etcdserver: corrupt cluster")
        wait_for(lambda: "serves no keys" in bent.stderr(), FOUND_S, "it knows")
        client = cluster.client(bent)
        assert refusal(lambda: client.range(KEY)) == corrupt
        assert refusal(lambda: client.range(KEY, serializable=True)) == corrupt
        assert refusal(lambda: cluster.client(leader).put(b"k", b"v")) == corrupt
        assert cluster.client(leader).range(KEY).kvs[0].value == b"value 5"
        assert page(bent, "/health") == (503, b'{"health":"false","reason":"ALARM CORRUPT"}\n')
        reason = json.loads(page(bent, "/health?exclude=CORRUPT")[1])["reason"]
        assert reason == "RANGE ERROR:etcdserver: corrupt cluster"
        assert b"data_corruption failed" in page(bent, "/readyz")[1]
        assert counted(leader, "compactions" if compacts else "cut", "differed") > 0
        assert b'alarm_type="CORRUPT"' in page(leader, "/metrics")[1]
        # Replaced, and the alarm cleared, all is well again.
        replaced = bent.member_id
        cluster.remove(bent)
        cluster.client(leader).invoke(
            "alarm", action=pb.AlarmRequest.DEACTIVATE, memberID=replaced, alarm=pb.CORRUPT
        )
        cluster.add("etcdtw")
        cluster.client(leader).put(b"k", b"v")
        cluster.assert_equal()
        time.sleep(2.5)
        assert alarms(cluster, leader) == set()
        cluster.check_logs()


def test_real_and_our_leaders_find_each_others_hashes_equal() -> None:
    cluster = Cluster(["etcd", "etcdtw", "etcd"])
    real, ours, _ = cluster.all
    real.flags = ["--experimental-corrupt-check-time=1s"]
    ours.flags = ["--corrupt-check-time=1s"]
    with cluster:
        for leader, agreed in (
            (real, lambda: '"number-of-peers-checked":2' in real.stderr()),
            (ours, lambda: counted(ours, "cut", "agreed") > 0),
        ):
            cluster.move_leader(leader)
            revision = fill(cluster)
            cluster.client(leader).invoke("compact", revision=revision - 2)
            fill(cluster)
            wait_for(agreed, FOUND_S, f"{leader.name} has compared")
            time.sleep(2.5)
            assert alarms(cluster, leader) == set()
            assert "hash mismatch" not in real.stderr()
