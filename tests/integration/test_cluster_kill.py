"""A cluster keeps every acknowledged write, and one history, when members die at any moment."""

from __future__ import annotations

import os

import pytest

from etcdtw.raft.entry import HardState
from etcdtw.server.start.bootstrap import Identity, encode_identity
from etcdtw.storage.log.founding import found_log
from etcdtw.storage.log.log import open_log
from tests.integration.cluster_kill_loop import ELECTION_TIMEOUTS_MAX, ClusterKillLoop
from tests.support.cluster_processes import ELECTION_S, Cluster
from tests.support.cluster_programs import with_programs
from tests.support.processes import READY_TIMEOUT_S

ROUNDS = 3
SEED = 3  # kills the leader in the second round
ACKNOWLEDGED_MIN = 100


@pytest.mark.integration
@pytest.mark.parametrize(
    ("first", "second", "third"),
    [
        with_programs("etcd", "etcd", "etcd"),
        with_programs("etcdtw", "etcdtw", "etcdtw"),
        with_programs("etcd", "etcd", "etcdtw", is_long=True),
        with_programs("etcd36", "etcd", "etcdtw", is_long=True),
        with_programs("etcd34", "etcd35", "etcdtw", is_long=True),
    ],
)
def test_histories_stay_linearizable_while_members_are_killed(
    first: str, second: str, third: str
) -> None:
    tally = ClusterKillLoop([first, second, third], SEED).run(ROUNDS)
    assert not tally.problems, "\n".join(tally.problems[:20])
    assert tally.rounds == tally.hashes == ROUNDS
    assert tally.acknowledged > ACKNOWLEDGED_MIN
    assert tally.read_back >= tally.acknowledged
    assert tally.new_leader_s, "no leader was killed: another seed is needed"
    assert max(tally.new_leader_s) < ELECTION_TIMEOUTS_MAX * ELECTION_S


@pytest.mark.integration
def test_the_loop_finds_reads_that_are_not_linearizable() -> None:
    """Followers of real etcd answer local reads from the past; clients here call them current."""
    tally = ClusterKillLoop(["etcd"] * 3, SEED, plants_stale_reads=True).run(ROUNDS)
    assert tally.problems
    assert all("STALE: Read" in text for text in tally.problems), tally.problems


@pytest.mark.integration
def test_a_member_that_died_before_its_first_entry_joins_when_it_starts_again() -> None:
    """Its leader reaches it first: it knows no peer, and must not forget that it has voted."""
    with Cluster(["etcdtw"]) as cluster:
        cluster_id = cluster.status(cluster.leader()).header.cluster_id
        member = cluster.announce("etcdtw")
        wal = member.data_dir / "member" / "wal"
        for folder in (member.data_dir, wal.parent):
            folder.mkdir(mode=0o700)
        env, lock_fd = open_log(wal)
        identity = encode_identity(Identity(member.member_id, cluster_id))
        found_log(env, env.info()["map_size"], identity, HardState(2, 0, 0), [])
        env.close()
        os.close(lock_fd)
        member.start(READY_TIMEOUT_S)
        cluster.ctl_output("put", "k", "v")
        assert len({cluster.status(one).header.revision for one in cluster.all}) == 1
        cluster.check_logs()


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.parametrize(
    "program", [with_programs("etcd"), with_programs("etcdtw"), with_programs("etcd34")]
)
def test_five_members_with_tls_survive_kills_and_pauses(program: str) -> None:
    loop = ClusterKillLoop([program] * 5, SEED, tls=True, pause_percent=30)
    tally = loop.run(10)
    assert not tally.problems, "\n".join(tally.problems[:20])
    assert tally.rounds == 10
