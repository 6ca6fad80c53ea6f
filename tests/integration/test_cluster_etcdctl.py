"""etcdctl against a cluster: membership, leadership, health, elections and locks."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Queue
from threading import Thread
from typing import Any, Final

import pytest

from tests.support.cluster_processes import Cluster, ClusterMember, wait_for
from tests.support.cluster_programs import with_programs
from tests.support.etcdctl import ctl_environment

pytestmark = pytest.mark.integration

LINE_TIMEOUT_S: Final = 40.0  # a session's lease of 60 s is let go of by SIGINT
QUIET_S: Final = 1.0
TRIOS: Final = pytest.mark.parametrize(
    ("first", "second", "third"),
    [
        with_programs("etcd", "etcd", "etcd"),
        with_programs("etcd34", "etcd34", "etcd34"),
        with_programs("etcdtw", "etcdtw", "etcdtw"),
        with_programs("etcd", "etcd", "etcdtw"),
    ],
)


def listed(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Return what ``member list`` tells of each member, by its first peer URL."""
    founders = cluster.all[:3]  # a learner may not be asked
    told = json.loads(cluster.ctl_output("member", "list", "-w", "json", members=founders))
    return {member["peerURLs"][0]: member for member in told["members"]}


def as_hex(member_id: int) -> str:
    return f"{member_id:x}"


def refused(cluster: Cluster, *arguments: str) -> str:
    """Return what etcdctl says on stderr; it must fail."""
    done = cluster.ctl(*arguments)
    assert done.returncode != 0, done.stdout
    return done.stderr


@TRIOS
def test_members_are_added_promoted_updated_and_removed(
    first: str, second: str, third: str
) -> None:
    with Cluster([first, second, third], tls=True) as cluster:
        lines = cluster.ctl_output("member", "list").splitlines()
        assert len(lines) == 3
        told = {line.split(", ")[2]: line.split(", ")[1:] for line in lines}
        for member in cluster.all:
            urls = [member.name, member.peer_url, member.client_url, "false"]
            assert told[member.name] == ["started", *urls]

        member = cluster.announce(third, learner=True)
        told_of = listed(cluster)[member.peer_url]
        assert told_of["isLearner"] is True
        assert "name" not in told_of  # it has not started
        member.start()
        assert listed(cluster)[member.peer_url]["clientURLs"] == [member.client_url]
        member_id = as_hex(member.member_id)

        def promoted() -> bool:
            return cluster.ctl("member", "promote", member_id).returncode == 0

        wait_for(promoted, LINE_TIMEOUT_S, "the learner is in sync and promoted")
        assert "isLearner" not in listed(cluster)[member.peer_url]
        assert "can only promote a learner" in refused(cluster, "member", "promote", member_id)

        assert "member not found" in refused(cluster, "member", "remove", "1234")

        def told_twice() -> bool:
            again = cluster.ctl("member", "add", "again", f"--peer-urls={member.peer_url}")
            return "Peer URLs already exists" in again.stderr

        # Before, while its peers have known it for less than 5 s, the cluster is "unhealthy".
        wait_for(told_twice, LINE_TIMEOUT_S, "a URL that is taken is refused")

        told_text = cluster.ctl_output(
            "member", "update", member_id, f"--peer-urls={member.peer_url},https://localhost:1"
        )
        assert told_text.split()[:3] == ["Member", member_id, "updated"]
        assert listed(cluster)[member.peer_url]["peerURLs"][1:] == ["https://localhost:1"]
        cluster.ctl_output("member", "update", member_id, f"--peer-urls={member.peer_url}")

        cluster.move_leader(member)
        told_text = cluster.ctl_output("member", "remove", member_id, members=cluster.all[:3])
        assert told_text.split()[:3] == ["Member", member_id, "removed"]
        wait_for(lambda: not member.is_running, LINE_TIMEOUT_S, "the removed member ends")
        assert len(listed(cluster)) == 3
        cluster.assert_equal()
        cluster.check_logs()


@TRIOS
def test_leadership_health_and_status_are_those_of_all(first: str, second: str, third: str) -> None:
    with Cluster([first, second, third]) as cluster:
        cluster.ctl_output("put", "a", "b")
        for member in (*cluster.all, *cluster.all):
            leader = cluster.leader()
            told = cluster.ctl("move-leader", as_hex(cluster.id_of(member)), members=[leader])
            if member is not leader:
                assert told.stdout == (
                    f"Leadership transferred from {as_hex(leader.member_id)} "
                    f"to {as_hex(member.member_id)}\n"
                ), told.stderr
            wait_for(lambda member=member: cluster.is_followed(member), LINE_TIMEOUT_S, "it leads")  # type: ignore[misc]
            statuses = json.loads(
                cluster.ctl_output("endpoint", "status", "--cluster", "-w", "json")
            )
            assert {one["Endpoint"] for one in statuses} == {one.client_url for one in cluster.all}
            assert {one["Status"]["leader"] for one in statuses} == {member.member_id}
            assert len({one["Status"]["raftTerm"] for one in statuses}) == 1
        follower = cluster.followers()[0]
        target = as_hex(cluster.leader().member_id)
        done = cluster.ctl("move-leader", target, members=[follower])
        assert "no leader endpoint given" in done.stderr

        healthy = cluster.ctl("endpoint", "health", "--cluster")
        assert (healthy.stdout + healthy.stderr).count(" is healthy: ") == 3
        hashes = json.loads(cluster.ctl_output("endpoint", "hashkv", "--cluster", "-w", "json"))
        assert len({one["HashKV"]["hash"] for one in hashes}) == 1

        cluster.kill([follower])
        done = cluster.ctl("endpoint", "health", members=cluster.all)
        assert done.returncode != 0
        text = done.stdout + done.stderr
        assert text.count(" is healthy: ") == 2
        assert text.count(" is unhealthy: ") == 1
        cluster.kill([cluster.leader()])
        last = cluster.serving[0]
        done = cluster.ctl("endpoint", "health", members=[last])
        assert done.returncode != 0, "no quorum, no health"
        assert cluster.ctl("get", "a", "--consistency=s").stdout == "a\nb\n"


class Following:
    """One etcdctl that goes on, and the lines that it prints."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ctl_environment(),
        )
        self._lines: Queue[str] = Queue()
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # etcdctl tells of retries of its connections between the lines that count.
            if not line.startswith("{"):
                self._lines.put(line.rstrip("\n"))

    def line(self, timeout_s: float = LINE_TIMEOUT_S) -> str:
        return self._lines.get(timeout=timeout_s)

    def is_silent(self) -> bool:
        try:
            self._lines.get(timeout=QUIET_S)
        except Empty:
            return True
        return False

    def interrupt(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(LINE_TIMEOUT_S)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


def took_lock(one: Following) -> bool:
    """Wait for the two lines of a lock that is held: its key, and the key's empty value."""
    return one.line().startswith("mutex/") and one.line() == ""


@contextmanager
def following(cluster: Cluster, *arguments: str) -> Iterator[Following]:
    one = Following(cluster.ctl_command(*arguments, members=cluster.all))
    try:
        yield one
    finally:
        one.close()


def replace_leader(cluster: Cluster, by_kill: bool) -> ClusterMember | None:
    """Let another member lead; returns the one that was killed for it."""
    leader = cluster.leader()
    if by_kill:
        cluster.kill([leader])
        cluster.leader(other_than=leader)
        return leader
    cluster.move_leader(cluster.followers()[0])
    return None


@TRIOS
@pytest.mark.parametrize("by_kill", [False, True], ids=["move", "kill"])
def test_a_lock_is_held_across_a_change_of_leader(
    first: str, second: str, third: str, by_kill: bool
) -> None:
    with Cluster([first, second, third]) as cluster, following(cluster, "lock", "mutex") as one:
        assert took_lock(one)
        with following(cluster, "lock", "mutex") as other:
            assert other.is_silent()
            dead = replace_leader(cluster, by_kill)
            assert other.is_silent()
            assert one.is_silent()
            assert one.interrupt() == 0
            assert took_lock(other)
            assert other.interrupt() == 0
        if dead is not None:
            cluster.start_members([dead])
        cluster.assert_equal()
        cluster.check_logs()


@TRIOS
@pytest.mark.parametrize("by_kill", [False, True], ids=["move", "kill"])
def test_an_election_is_held_across_a_change_of_leader(
    first: str, second: str, third: str, by_kill: bool
) -> None:
    with (
        Cluster([first, second, third]) as cluster,
        following(cluster, "elect", "office", "one") as one,
        following(cluster, "elect", "--listen", "office") as listener,
    ):
        key = one.line()
        assert key.startswith("office/")
        assert one.line() == "one"
        assert [listener.line(), listener.line()] == [key, "one"]
        with following(cluster, "elect", "office", "other") as other:
            assert other.is_silent()
            replace_leader(cluster, by_kill)
            assert other.is_silent()
            assert one.interrupt() == 0
            assert other.line().startswith("office/")
            assert other.line() == "other"
            assert listener.line().startswith("office/")
            assert listener.line() == "other"
            assert other.interrupt() == 0
        cluster.check_logs()
