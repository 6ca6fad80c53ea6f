"""Waiting for a lock of the service while the leader changes, dies, and history is compacted."""

from __future__ import annotations

from contextlib import closing

import grpc
import pytest

from tests.integration.lock_loop import FAULTS_MIN, KINDS, run_loop
from tests.integration.test_locks import keys, lease, lock, unlock, until
from tests.support.cluster_processes import Cluster
from tests.support.cluster_programs import with_programs

pytestmark = pytest.mark.integration

SECTIONS = 40
SEED = 7


@pytest.mark.parametrize(
    ("first", "second", "third"),
    [with_programs("etcdtw", "etcdtw", "etcdtw"), with_programs("etcdtw", "etcd", "etcd")],
)
def test_waiters_are_served_whoever_leads(first: str, second: str, third: str) -> None:
    with Cluster([first, second, third]) as cluster:
        m1, m2, m3 = cluster.all
        client = cluster.client(m1)
        with (
            closing(grpc.insecure_channel(m1.endpoint)) as here,
            closing(grpc.insecure_channel(m2.endpoint)) as there,
        ):
            key = lock(there, "a", lease(client)).result().key
            call = lock(here, "a", lease(client))
            until(lambda: len(keys(client, "a")) == 2)
            for target in (m2, m1, m3):
                if cluster.leader() is not target:
                    cluster.move_leader(target)
            client.invoke("compact", revision=cluster.revision())
            cluster.kill([m3])
            cluster.leader()
            assert not call.done()
            unlock(here, key).result()
            assert keys(client, "a") == [call.result().key]


def test_critical_sections_do_not_overlap_while_members_fail() -> None:
    loop = run_loop(["etcdtw"] * 3, SECTIONS, SEED)
    assert loop.overlaps() == []
    assert len(loop.sections) >= SECTIONS, loop.outcomes
    assert {section.kind for section in loop.sections} == set(KINDS)
    assert loop.faults.total() >= FAULTS_MIN
