"""Snapshots of every program: real etcdutl reads them, and real etcd boots from them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.mixed_clusters import serves_all, snapshots_sent, store_all_kinds
from tests.support.cluster_processes import Cluster
from tests.support.cluster_programs import with_programs
from tests.support.etcdctl import ctl_environment
from tests.support.judges import judge_program

pytestmark = pytest.mark.integration

UTL_TIMEOUT_S: Final = 60.0
SAVED_FROM: Final = pytest.mark.parametrize(
    ("program", "joiner"),
    [
        with_programs("etcd", "etcd"),
        with_programs("etcd34", "etcd35"),
        with_programs("etcd36", "etcd"),
        with_programs("etcdtw", "etcd"),
        with_programs("etcd", "etcdtw"),
        with_programs("etcdtw", "etcdtw"),
    ],
)


def etcdutl(*arguments: str) -> str:
    done = subprocess.run(
        [str(judge_program("etcdutl")), *arguments],
        capture_output=True,
        text=True,
        timeout=UTL_TIMEOUT_S,
        env=ctl_environment(),
        check=False,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout


def restore(snapshot: Path, cluster: Cluster) -> None:
    """Give every member of a cluster that has not started its data from ``snapshot``."""
    for member in cluster.all:
        etcdutl(
            *("snapshot", "restore", str(snapshot), "--data-dir", str(member.data_dir)),
            *("--name", member.name, "--initial-cluster", member.initial_cluster),
            *("--initial-cluster-token", member.initial_cluster_token),
            *("--initial-advertise-peer-urls", member.peer_url),
        )


def everything(cluster: Cluster) -> list[Any]:
    answer = cluster.client(cluster.leader()).range(b"\0", b"\0")
    return list(answer.kvs)


def lease_ids(cluster: Cluster) -> set[int]:
    answer = cluster.client(cluster.leader()).invoke("lease_leases")
    return {lease.ID for lease in answer.leases}


@SAVED_FROM
def test_real_etcd_boots_from_a_snapshot_of_any_member(
    program: str, joiner: str, tmp_path: Path
) -> None:
    with Cluster([program] * 3) as cluster:
        store_all_kinds(cluster, cluster.leader(), "one")
        store_all_kinds(cluster, cluster.followers()[0], "two")
        revision = cluster.revision()
        cluster.wait_applied(revision)
        expected_hash = cluster.assert_equal(revision)
        expected = everything(cluster)
        leases = {
            lease.ID for lease in cluster.client(cluster.all[0]).invoke("lease_leases").leases
        }
        files = []
        for member in cluster.all:
            files.append(tmp_path / f"{member.name}.db")
            cluster.ctl_output("snapshot", "save", str(files[-1]), members=[member])
        cluster.check_logs()
    for file in files:
        told = json.loads(etcdutl("snapshot", "status", str(file), "-w", "json"))
        assert told["revision"] == revision
        assert told["totalKey"] >= len(expected)

    for file, size in ((files[0], 3), (files[1], 1), (files[2], 1)):
        restored = Cluster(["etcd"] * size)
        restore(file, restored)
        with restored as cluster:
            assert everything(cluster) == expected
            assert lease_ids(cluster) == leases
            assert cluster.assert_equal(revision) == expected_hash
            store_all_kinds(cluster, cluster.leader(), "after")
            serves_all(cluster, "restored")
            if size == 1:
                # The log of what was restored begins behind the data: who joins needs a snapshot.
                member = cluster.add(joiner, learner=True)
                cluster.assert_equal()
                assert snapshots_sent(cluster.all[0], member) >= 1
                cluster.promote(member)
                cluster.move_leader(member)
                serves_all(cluster, "joined")
            cluster.check_logs()
