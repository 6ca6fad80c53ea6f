"""What happens to a cluster once in a while: an election, and a snapshot for a new member."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from statistics import median
from typing import Final

from benchmarks import workloads
from benchmarks.disturbance import Phase, phases
from benchmarks.load import LoadRun, Work
from etcdtw.wire import etcdserverpb as pb
from tests.differential.operations import PUT
from tests.integration.mixed_clusters import snapshots_sent
from tests.support import wire_frames as wire
from tests.support.cluster_processes import ELECTION_S, Cluster, ClusterMember
from tests.support.processes import memory_kib

MEMBERS: Final = 3
CLIENTS: Final = 10
PUTS_A_TXN: Final = 40
LARGE_VALUE_OCTETS: Final = 15 * 1024  # the load generator sends a request as one frame
QUOTA: Final = ("--quota-backend-bytes", "8589934592")
# etcd keeps 5,000 entries of its log behind the last snapshot: beyond them a joiner needs one.
FILLER_ENTRIES: Final = 5_600
SNAPSHOT_FLAGS: Final = (*QUOTA, "--snapshot-count", "100")
INSTALL_TIMEOUT_S: Final = 600.0
MEMORY_EVERY_S: Final = 0.05
PROBE_S: Final = 0.1
MAXIMUM_S: Final = 5.0  # how long the rate at most is measured
AFTER_S: Final = 5.0
SETTLE_S: Final = 1.0


@dataclass(slots=True)
class Election:
    """Seconds after kill -9 of the leader, one of each election."""

    new_leader_s: list[float] = field(default_factory=list)
    first_write_s: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Install:
    """One snapshot for a new learner."""

    seconds: float  # from the start of its process until it has applied everything
    joiner_mib: float  # RssAnon of the joiner, at most
    leader_gained_mib: float  # RssAnon of the leader above what it had, at most
    size_mib: float  # of the leader's database


def elections(program: str, times: int) -> Election:
    """Kill the leader ``times`` times."""
    found = Election()
    with Cluster([program] * MEMBERS) as cluster:
        for i in range(times):
            leader = cluster.leader()
            struck = time.monotonic()
            cluster.kill([leader])
            new, seconds = cluster.time_to_new_leader(leader, struck)
            found.new_leader_s.append(seconds)
            cluster.client(new).put(b"elected", b"%d" % i)
            found.first_write_s.append(time.monotonic() - struck)
            cluster.start_members([leader])
            cluster.assert_equal()
            time.sleep(SETTLE_S)
    return found


class MemoryWatch:
    """Samples RssAnon of members until it is ended; a context manager."""

    def __init__(self, members: Sequence[ClusterMember]) -> None:
        self._members = members
        self._is_ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.most_mib = {member.name: 0.0 for member in members}

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._is_ended.wait(MEMORY_EVERY_S):
            for member in self._members:
                if member.is_running:
                    now = memory_kib(member.pids) / 1024
                    self.most_mib[member.name] = max(self.most_mib[member.name], now)


def _store(leader: ClusterMember, work: Work) -> None:
    stored = LoadRun(work).exhaust(leader.endpoint, connections=CLIENTS, streams=4)
    assert not stored.errors, stored.error_texts


def _fill_log(leader: ClusterMember, entries: int) -> None:
    message = wire.grpc_message(pb.PutRequest(key=b"filler", value=b"x").SerializeToString())
    _store(leader, Work(PUT, [message] * max(entries, 0)))


def _install(cluster: Cluster, program: str, revision: int) -> Install:
    """Add a learner and wait until it has applied ``revision``."""
    leader = cluster.leader()
    status = cluster.status(leader)
    before_mib = memory_kib(leader.pids) / 1024
    joiner = cluster.announce(program, learner=True)
    with MemoryWatch([leader, joiner]) as memory:
        began = time.monotonic()
        joiner.launch()
        while not _has_applied(cluster, joiner, revision):
            if time.monotonic() > began + INSTALL_TIMEOUT_S:
                raise TimeoutError(f"{joiner.name} has not caught up:\n{joiner.stderr()[-2000:]}")
            time.sleep(PROBE_S)
        seconds = time.monotonic() - began
    assert snapshots_sent(leader, joiner) >= 1, "the learner was not sent a snapshot"
    return Install(
        seconds,
        memory.most_mib[joiner.name],
        max(0.0, memory.most_mib[leader.name] - before_mib),
        status.dbSize / 2**20 if status else 0.0,
    )


def _has_applied(cluster: Cluster, joiner: ClusterMember, revision: int) -> bool:
    """Ask at the peer port: clients are served later, once the joiner has published itself."""
    try:
        cluster.peer_hash(joiner, revision)
    except (OSError, HTTPException, AssertionError):  # it does not listen, or lacks the revision
        return False
    return True


def install(program: str, keys: int) -> Install:
    """Install a snapshot with ``keys`` keys of 256 octets in a quiet cluster."""
    names = [b"load/%09d" % i for i in range(keys)]
    with Cluster([program] * MEMBERS, flags=SNAPSHOT_FLAGS) as cluster:
        leader = cluster.leader()
        _store(leader, workloads.load_in_txns(names, PUTS_A_TXN))
        _fill_log(leader, FILLER_ENTRIES)
        time.sleep(SETTLE_S)
        done = _install(cluster, program, cluster.revision())
        cluster.assert_equal()
        return done


def _large(mebioctets: int) -> Work:
    value = bytes(range(256)) * (LARGE_VALUE_OCTETS // 256)
    count = mebioctets * 2**20 // LARGE_VALUE_OCTETS
    messages = [
        wire.grpc_message(pb.PutRequest(key=b"large/%06d" % i, value=value).SerializeToString())
        for i in range(count)
    ]
    return Work(PUT, messages)


def disturbance(program: str, mebioctets: int, seconds: float) -> tuple[list[Phase], Install]:
    """Install a large snapshot under puts at half the rate at most; phases quiet, during, after."""
    with Cluster([program] * MEMBERS, flags=SNAPSHOT_FLAGS) as cluster:
        leader = cluster.leader()
        stored = LoadRun(_large(mebioctets)).exhaust(leader.endpoint, connections=4, streams=3)
        assert not stored.errors, stored.error_texts
        _fill_log(leader, FILLER_ENTRIES)
        most = LoadRun(workloads.put()).closed_loop(
            leader.endpoint, connections=CLIENTS, streams=1, seconds=MAXIMUM_S
        )
        revision = cluster.revision()
        found: list[Install] = []
        spans: list[float] = []
        began = time.perf_counter()

        def installing() -> None:
            time.sleep(seconds)
            spans.append(time.perf_counter() - began)
            found.append(_install(cluster, program, revision))
            spans.append(time.perf_counter() - began)

        thread = threading.Thread(target=installing)
        thread.start()
        result = LoadRun(workloads.put(), keep_times=True).open_loop(
            leader.endpoint, connections=CLIENTS, rate=most.rate / 2, seconds=3 * seconds
        )
        thread.join()
        assert not result.errors, result.error_texts
        assert found, "the snapshot was not installed"
        start, stop = spans
        bounds = [0.0, start, min(stop, 3 * seconds - 1), 3 * seconds]
        return phases(result, began, bounds), found[0]


def election_row(side: str, found: Election) -> str:
    """Return a line of the report."""
    new, write = median(found.new_leader_s), median(found.first_write_s)
    return (
        f"{side:12}{len(found.new_leader_s):6}{new:12.2f}{max(found.new_leader_s):10.2f}"
        f"{new / ELECTION_S:12.2f}{write:14.2f}"
    )
