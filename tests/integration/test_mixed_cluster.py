"""Members of different programs form one cluster: each joins, learns, leads and leaves.

Real etcd with itself is the control, and a line joining the one before as an operator upgrades.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Final

import pytest

from tests.integration.cluster_clients import check_history, run_clients
from tests.integration.mixed_clusters import (
    CATCH_UP_ENTRIES,
    SNAPSHOT_FLAGS,
    serves_all,
    snapshots_sent,
    store_all_kinds,
    store_many,
)
from tests.support.cluster_processes import Cluster, ClusterMember, wait_for
from tests.support.cluster_programs import with_programs
from tests.support.etcd_client import RpcFailedError
from tests.support.processes import OLDER_LINES
from tests.support.revision_order import RevisionOrderChecker

pytestmark = pytest.mark.integration

LEASE_TTL_S: Final = 2
LEASE_EXPIRED_S: Final = 15.0
CLIENTS: Final = 4
DURABLE_S: Final = 2.0  # a log of ours is compacted behind what the state has made durable
LOG_HELD_S: Final = 31.0  # after it sent a snapshot a leader keeps its log for 30 s
# (the cluster's program, the program of who joins it)
PAIRS: Final = [
    with_programs("etcd", "etcd"),
    with_programs("etcd34", "etcd35"),
    with_programs("etcd36", "etcd"),
    with_programs("etcd", "etcdtw"),
    with_programs("etcd36", "etcdtw"),
    with_programs("etcd35", "etcdtw"),
    with_programs("etcd34", "etcdtw"),
    with_programs("etcdtw", "etcd"),
    with_programs("etcdtw", "etcdtw"),
]


def is_covered(lines: Collection[str], base: str, joiner: str) -> bool:
    """Whether another pair, or the tests of clusters of ours, show nearly the same."""
    return base in lines or base == joiner


OLDEST_AND_NEWEST: Final = [
    with_programs(*pair.values, is_long=is_covered(("etcd35", "etcd36"), *pair.values))
    for pair in PAIRS
]
NEWEST_PAIRS: Final = [
    with_programs(*pair.values, is_long=is_covered(OLDER_LINES, *pair.values)) for pair in PAIRS
]


def lease_expires(cluster: Cluster, member: ClusterMember) -> None:
    """A lease that nobody renews takes its key along; one that is renewed stays."""
    client = cluster.client(member)
    gone = client.invoke("lease_grant", TTL=LEASE_TTL_S)
    kept = client.invoke("lease_grant", TTL=LEASE_TTL_S)
    client.put(b"lease/gone", b"x", lease=gone.ID)
    client.put(b"lease/kept", b"x", lease=kept.ID)

    def is_gone() -> bool:
        assert client.keep_alive([kept.ID])[0].TTL == LEASE_TTL_S
        return not client.range(b"lease/gone").kvs

    wait_for(is_gone, LEASE_EXPIRED_S, "the lease expires")
    assert client.range(b"lease/kept").kvs
    client.invoke("lease_revoke", ID=kept.ID)


@pytest.mark.parametrize(("base", "joiner"), OLDEST_AND_NEWEST)
def test_a_member_joins_learns_follows_leads_and_leaves(base: str, joiner: str) -> None:
    with Cluster([base] * 3) as cluster:
        store_all_kinds(cluster, cluster.leader(), "before")
        first = cluster.leader()

        member = cluster.add(joiner, learner=True)
        cluster.assert_equal()
        learner = cluster.client(member)
        with pytest.raises(RpcFailedError, match="rpc not supported for learner"):
            learner.put(b"a", b"b")
        assert learner.range(b"before/0", serializable=True).kvs[0].value == b"value 0 of before"

        cluster.promote(member)
        assert not cluster.client(first).invoke("member_list").members[-1].isLearner
        store_all_kinds(cluster, member, "follower")
        serves_all(cluster, "follows")
        lease_expires(cluster, member)

        cluster.kill([member])
        store_all_kinds(cluster, first, "while it was dead")
        cluster.start_members([member])
        serves_all(cluster, "is back")

        cluster.move_leader(member)
        store_all_kinds(cluster, member, "leader")
        store_all_kinds(cluster, first, "through a follower")
        serves_all(cluster, "leads")
        lease_expires(cluster, first)
        assert cluster.leader() is member

        cluster.move_leader(first)
        serves_all(cluster, "follows again")
        cluster.move_leader(member)
        cluster.remove(member)
        assert cluster.leader() is not member
        store_all_kinds(cluster, cluster.leader(), "after")
        serves_all(cluster, "is gone")
        cluster.check_logs()


@pytest.mark.parametrize(("base", "joiner"), NEWEST_PAIRS)
def test_a_leader_that_stops_hands_over_and_one_that_dies_is_replaced(
    base: str, joiner: str
) -> None:
    with Cluster([base, base, joiner]) as cluster:
        ours = cluster.all[-1]
        for _ in range(2):
            cluster.move_leader(ours)
            serves_all(cluster, "three")
            began = time.monotonic()
            cluster.stop(ours)
            assert cluster.leader(other_than=ours) is not ours
            stopped_s = time.monotonic() - began
            assert stopped_s < 5.0, f"a leader that stops transfers leadership: {stopped_s:.1f} s"
            serves_all(cluster, "two")
            cluster.start_members([ours])
            cluster.move_leader(ours)
            cluster.kill([ours])
            cluster.leader(other_than=ours)
            serves_all(cluster, "two")
            cluster.start_members([ours])
            serves_all(cluster, "three again")
        others = [member for member in cluster.all if member is not ours]
        cluster.move_leader(others[0])
        cluster.kill(others[:1])
        assert cluster.leader(other_than=others[0]) in (ours, others[1])
        serves_all(cluster, "without another")
        cluster.start_members(others[:1])
        cluster.assert_equal()
        cluster.check_logs()


@pytest.mark.parametrize(("base", "joiner"), NEWEST_PAIRS)
def test_members_are_found_at_a_new_peer_url(base: str, joiner: str) -> None:
    with Cluster([base, base, joiner]) as cluster:
        for member in (cluster.all[0], cluster.all[2]):
            store_all_kinds(cluster, cluster.leader(), f"before {member.name}")
            cluster.move_peer_port(member)
            serves_all(cluster, f"{member.name} has moved")
            cluster.move_leader(member)
            serves_all(cluster, f"{member.name} leads")
        told = cluster.client(cluster.leader()).invoke("member_list").members
        assert {url for one in told for url in one.peerURLs} == {
            member.peer_url for member in cluster.all
        }
        cluster.check_logs()


@pytest.mark.long
@pytest.mark.parametrize(("base", "joiner"), PAIRS)
def test_snapshots_are_received_by_a_learner_and_sent_by_a_leader(base: str, joiner: str) -> None:
    with Cluster([base] * 3, flags=SNAPSHOT_FLAGS) as cluster:
        leader = cluster.leader()
        store_all_kinds(cluster, leader, "before")
        store_many(cluster, leader, CATCH_UP_ENTRIES + 1000)

        member = cluster.add(joiner, learner=True)
        cluster.assert_equal()
        assert snapshots_sent(cluster.leader(), member) >= 1
        cluster.promote(member)
        serves_all(cluster, "after a snapshot")

        cluster.move_leader(member)
        last = cluster.add(base, learner=True)
        cluster.assert_equal()
        assert snapshots_sent(member, last) >= 1
        cluster.promote(last)
        store_all_kinds(cluster, last, "after")
        serves_all(cluster, "after two")

        # One that was away for long is sent a snapshot too, in place of what it had.
        sent_s = time.monotonic()
        for sender, away in ((last, member), (member, last)):
            cluster.kill([away])
            cluster.move_leader(sender)
            if sender is member:
                time.sleep(max(0.0, sent_s + LOG_HELD_S - time.monotonic()))
            sent = snapshots_sent(sender, away)
            store_many(cluster, sender, CATCH_UP_ENTRIES + 1000)
            time.sleep(DURABLE_S)
            cluster.start_members([away])
            serves_all(cluster, f"{away.name} is back")
            assert snapshots_sent(sender, away) > sent
        cluster.check_logs()


def is_upgrade(base: str, joiner: str) -> bool:
    """Say whether a cluster that is all ``joiner`` is of a later line, and cannot go back."""
    return base in OLDER_LINES and joiner != "etcdtw"


def replace_all(cluster: Cluster, program: str) -> None:
    """Put a member of ``program`` in the place of every one that there is, one after another."""
    for old in cluster.all:
        new = cluster.add(program, learner=True)
        cluster.promote(new)
        cluster.remove(old)


@pytest.mark.long
@pytest.mark.parametrize(("base", "joiner"), PAIRS)
def test_a_cluster_is_replaced_member_by_member_under_load(base: str, joiner: str) -> None:
    checker = RevisionOrderChecker()
    with Cluster([base] * 3) as cluster:
        directions = [joiner] if is_upgrade(base, joiner) else [joiner, base]
        for i, program in enumerate(directions):
            clients = run_clients(
                cluster,
                lambda: cluster.serving,
                CLIENTS,
                i,
                lambda program=program: replace_all(cluster, program),  # type: ignore[misc]
            )
            assert check_history(cluster, checker, clients) > 100
            assert [member.program for member in cluster.all] == [program] * 3
        serves_all(cluster, "all are replaced")
        cluster.check_logs()
