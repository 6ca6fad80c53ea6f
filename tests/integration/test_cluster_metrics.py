"""The metrics and health pages of members of a cluster: its peers, its learner, its end."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Final

import pytest

from tests.integration.mixed_clusters import store_many
from tests.support.cluster_processes import Cluster, ClusterMember, wait_for
from tests.support.etcd_client import RpcFailedError
from tests.support.judges import judge_line

pytestmark = pytest.mark.integration

WITHIN_S: Final = 20.0
PAGE_S: Final = 15.0
DURABLE_S: Final = 2.0  # a log is compacted behind what the state has made durable
RECENT_TIMEOUT_S: Final = 9.0
"""A read gives up after five seconds and two elections."""
SNAPSHOT_FLAGS: Final = ("--snapshot-count", "100", "--snapshot-catchup-entries", "50")
HEALTHY: Final = (200, '{"health":"true","reason":""}')
NO_LEADER: Final = (503, '{"health":"false","reason":"RAFT NO LEADER"}\n')


def page(member: ClusterMember, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{member.client_url}{path}", timeout=PAGE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def series_of(name: str, **labels: str) -> str:
    shown = ",".join([f'{label}="{value}"' for label, value in labels.items()])
    return f"{name}{{{shown}}}" if shown else name


class Scraped:
    """One scrape of one member, its peers by name."""

    def __init__(self, cluster: Cluster, member: ClusterMember) -> None:
        # Not by prometheus_client's parser: it renames counters that do not end in _total.
        lines = page(member, "/metrics")[1].splitlines()
        shown = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        self.values = {series: float(value) for series, _, value in shown}
        self._ids = {one.name: f"{one.member_id:x}" for one in cluster.all}
        self._local = self._ids[member.name]

    def value(self, name: str, **labels: str) -> float:
        return self.values[series_of(name, **labels)]

    def to(self, peer: ClusterMember, name: str) -> float:
        return self.value(f"etcd_network_{name}", To=self._ids[peer.name])

    def came(self, peer: ClusterMember, name: str) -> float:
        return self.value(f"etcd_network_{name}", From=self._ids[peer.name])

    def pair(self, peer: ClusterMember, name: str) -> float:
        labels = {"Local": self._local, "Remote": self._ids[peer.name]}
        return self.value(f"etcd_network_{name}", **labels)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(["etcdtw"] * 3, flags=SNAPSHOT_FLAGS) as running:
        yield running
        running.check_logs()


def scraped(cluster: Cluster, member: ClusterMember) -> Scraped:
    cluster.leader()  # it learns the ids of all
    return Scraped(cluster, member)


def test_each_member_counts_what_goes_to_and_comes_from_the_others(cluster: Cluster) -> None:
    leader = cluster.leader()
    before = {member.name: scraped(cluster, member) for member in cluster.all}
    for i in range(20):
        cluster.client(leader).put(b"k%d" % i, bytes(1000))
    for follower in cluster.followers():
        there, then = scraped(cluster, leader), before[leader.name]
        sent = there.to(follower, "peer_sent_bytes_total")
        assert sent - then.to(follower, "peer_sent_bytes_total") >= 20_000
        here, then = scraped(cluster, follower), before[follower.name]
        received = here.came(leader, "peer_received_bytes_total")
        assert received - then.came(leader, "peer_received_bytes_total") >= 20_000
        assert here.pair(leader, "active_peers") == there.pair(follower, "active_peers") == 1
        assert here.pair(follower, "known_peers") == here.pair(leader, "known_peers") == 1


def test_one_leads_and_all_have_a_leader(cluster: Cluster) -> None:
    leader = cluster.leader()
    for member in cluster.all:
        found = scraped(cluster, member)
        assert found.value("etcd_server_has_leader") == 1
        assert found.value("etcd_server_is_leader") == (member is leader)
        assert found.value("etcd_server_is_learner") == 0
        assert found.value("etcd_server_leader_changes_seen_total") >= 1
        assert found.value("etcd_server_proposals_pending") == 0
        assert found.value("etcd_server_snapshot_apply_in_progress_total") == 0
        assert page(member, "/health") == HEALTHY
        assert page(member, "/readyz") == page(member, "/livez") == (200, "ok\n")


def test_round_trips_are_measured_within_the_first_seconds(cluster: Cluster) -> None:
    name = "peer_round_trip_time_seconds"
    pairs = [(one, other) for one in cluster.all for other in cluster.all if one is not other]
    for one, other in pairs:
        until = time.monotonic() + WITHIN_S
        while not (found := scraped(cluster, one)).to(other, f"{name}_count"):
            assert time.monotonic() < until, f"{one.name} has not probed {other.name}"
            time.sleep(0.2)
        assert found.to(other, f"{name}_sum") / found.to(other, f"{name}_count") < 1.0


def test_a_learner_gets_a_snapshot_serves_one_and_is_promoted(cluster: Cluster) -> None:
    leader = cluster.leader()
    store_many(cluster, leader, 500)
    announced = cluster.announce("etcdtw", learner=True)
    reason = "etcdserver: can only promote a learner member which is in sync with leader"
    with pytest.raises(RpcFailedError, match=reason):
        cluster.client(leader).invoke("member_promote", ID=announced.member_id)
    failures = scraped(cluster, leader).value("etcd_server_learner_promote_failures", Reason=reason)
    assert failures == 1
    time.sleep(DURABLE_S)
    cluster.start_members([announced])
    learner = announced
    wait_for(
        lambda: scraped(cluster, leader).to(learner, "snapshot_send_success") == 1,
        WITHIN_S,
        "the snapshot",
    )
    there, here = scraped(cluster, leader), scraped(cluster, learner)
    assert there.to(learner, "snapshot_send_total_duration_seconds_count") == 1
    assert there.to(learner, "snapshot_send_inflights_total") == 0
    assert here.came(leader, "snapshot_receive_success") == 1
    assert here.came(leader, "snapshot_receive_total_duration_seconds_count") == 1
    assert here.value("etcd_server_is_learner") == 1
    assert page(learner, "/health") == page(learner, "/health?serializable=true") == HEALTHY
    assert page(learner, "/livez") == (200, "ok\n")
    status, text = page(learner, "/readyz")
    assert status == 503
    assert "[-]non_learner failed: not supported for learner\n" in text
    assert "[+]linearizable_read ok\n" in text
    *chunks, seal = list(cluster.client(learner).snapshot())
    assert (len(seal.blob), chunks[-1].remaining_bytes) == (32, 0)
    cluster.promote(learner)
    assert page(learner, "/readyz") == (200, "ok\n")
    assert scraped(cluster, leader).value("etcd_server_learner_promote_successes") == 1
    assert scraped(cluster, learner).value("etcd_server_is_learner") == 0
    cluster.remove(learner)
    labels = {"Local": f"{leader.member_id:x}", "Remote": f"{learner.member_id:x}"}
    found = scraped(cluster, leader)
    assert found.value("etcd_network_known_peers", **labels) == 0
    assert series_of("etcd_network_active_peers", **labels) not in found.values


def test_the_last_of_three_says_what_it_cannot_do(cluster: Cluster) -> None:
    last = cluster.leader()
    others = cluster.followers()
    cluster.client(last).put(b"k", b"v")
    lost = scraped(cluster, last).pair(others[0], "disconnected_peers_total")
    cluster.kill(others)
    wait_for(lambda: page(last, "/health") == NO_LEADER, WITHIN_S, "a leader without a quorum")
    assert page(last, "/health?serializable=true") == HEALTHY
    assert page(last, "/livez") == (200, "ok\n")
    assert page(last, "/readyz?exclude=linearizable_read") == (200, "ok\n")
    asked = time.monotonic()
    status, text = page(last, "/readyz")
    assert time.monotonic() - asked < RECENT_TIMEOUT_S
    assert status == 503
    assert "[-]linearizable_read failed: etcdserver: request timed out" in text
    assert "[+]serializable_read ok\n" in text
    found = Scraped(cluster, last)
    assert found.value("etcd_server_has_leader") == found.value("etcd_server_is_leader") == 0
    assert found.value("etcd_server_read_indexes_failed_total") >= 1
    assert found.value("etcd_server_slow_read_indexes_total") >= 1
    assert found.pair(others[0], "active_peers") == 0
    assert found.pair(others[0], "disconnected_peers_total") == lost + 1
    assert found.to(others[0], "peer_sent_failures_total") >= 1
    cluster.start_members(others)
    cluster.leader()
    for member in cluster.all:
        assert page(member, "/health") == HEALTHY
        assert page(member, "/readyz") == (200, "ok\n")
    assert json.loads(page(last, "/version")[1])["etcdcluster"] == judge_line()
