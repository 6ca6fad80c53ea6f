"""Three members of real etcd and three of etcdtw: ``python -m benchmarks.cluster``.

(= ``make bench-cluster``)  Each round starts three fresh clusters (real etcd, etcdtw, real etcd
once more), stores the same keys in each, and measures one workload after the other through the
leader and through a follower, on one cluster at a time: the others are stopped (SIGSTOP)
meanwhile, and the order turns with every round.  Then elections, and snapshots for a new member.
All members and the load generator share the cores of this machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks import cluster_events, surroundings, workloads
from benchmarks.load import LoadResult, LoadRun, Work
from benchmarks.side_by_side import (
    BASE_ONLY_HELP,
    FLOOR_HELP,
    Line,
    sides_here,
    slower_than,
    table,
)
from tests.support.cluster_processes import Cluster
from tests.support.processes import MemberNotReadyError, cpu_seconds
from tests.support.wire_client import ConnectionFailedError

SETTLE_S: Final = 0.5
SLICES: Final = 3  # of a measurement, in which sides take turns: a machine's moods last seconds
RESUME_S: Final = 1.0  # after SIGCONT: an election that this brings about is over
FOLLOWER: Final = "follower"
QUICK: Final = {
    "rounds": 1,
    "seconds": 2.0,
    "elections": 2,
    "install_keys": 50_000,
    "install_times": 1,
    "install_mib": 50,
    "quiet_seconds": 5.0,
}


@dataclass(frozen=True, slots=True)
class ClusterWorkload:
    """A workload, made through the leader or through a follower."""

    name: str
    build: Callable[[], Work]
    connections: int
    streams: int
    through: str


def _both(
    name: str, build: Callable[[], Work], connections: int, streams: int
) -> list[ClusterWorkload]:
    return [
        ClusterWorkload(f"{name}, {through}", build, connections, streams, through)
        for through in ("leader", FOLLOWER)
    ]


WORKLOADS: Final = (
    *_both("put 100x10", workloads.put, 100, 10),
    *_both("put 1x1", workloads.put, 1, 1),
    *_both("txn 100x10", workloads.txn, 100, 10),
    *_both("range linearizable 100x10", workloads.linearizable_range, 100, 10),
    *_both("range linearizable 1x1", workloads.linearizable_range, 1, 1),
    *_both("range serializable 100x10", workloads.serializable_range, 100, 10),
)


def pause(cluster: Cluster) -> None:
    """Stop all members, and forget connections that will not outlive it."""
    for member in cluster.all:
        cluster.forget_client(member)
        member.pause()


def resume(cluster: Cluster) -> None:
    """Let all members go on, and wait until they agree on a leader."""
    for member in cluster.all:
        member.resume()
    time.sleep(RESUME_S)
    cluster.leader()


def begin(stack: ExitStack, side: str) -> Cluster:
    """Start a cluster of ``side``, store the keys in it and pause it."""
    cluster = stack.enter_context(
        Cluster([side.split()[0]] * cluster_events.MEMBERS, flags=cluster_events.QUOTA)
    )
    stored = LoadRun(workloads.preload()).exhaust(
        cluster.leader().endpoint, connections=10, streams=4
    )
    assert not stored.errors, stored.error_texts
    time.sleep(SETTLE_S)
    pause(cluster)
    return cluster


def load(one: ClusterWorkload, cluster: Cluster, seconds: float) -> tuple[LoadResult, float]:
    """Return the result and the processor time of all members."""
    member = cluster.followers()[0] if one.through == FOLLOWER else cluster.leader()
    pids = [pid for each in cluster.all for pid in each.pids]
    before_s = cpu_seconds(pids)
    result = LoadRun(one.build()).closed_loop(
        member.endpoint, connections=one.connections, streams=one.streams, seconds=seconds
    )
    return result, cpu_seconds(pids) - before_s


def _round(
    sides: list[str], chosen: list[ClusterWorkload], lines: dict[str, Line], seconds: float
) -> None:
    with ExitStack() as stack:
        clusters = {}
        for side in sides:
            clusters[side] = begin(stack, side)
        for one in chosen:
            for side, cluster in list(clusters.items()) * SLICES:
                resume(cluster)
                result, cpu_s = load(one, cluster, seconds / SLICES)
                lines[one.name].add(side, result, cpu_s)
                time.sleep(SETTLE_S)
                pause(cluster)
        for cluster in clusters.values():
            resume(cluster)
            cluster.assert_equal()


def measure(
    chosen: list[ClusterWorkload], rounds: int, seconds: float, sides: list[str]
) -> dict[str, Line]:
    """Run all rounds; what breaks one off is told below the table."""
    lines = {one.name: Line(one.name) for one in chosen}
    for i in range(rounds):
        turned = sides[i % len(sides) :] + sides[: i % len(sides)]
        try:
            _round(turned, chosen, lines, seconds)
        except (
            *(MemberNotReadyError, ConnectionError, ConnectionFailedError),
            *(TimeoutError, AssertionError),
        ) as error:
            lines[chosen[0].name].complaints.append(f"a round broke off: {error!r}"[-2000:])
        print(f"round {i + 1} of {rounds} done", file=sys.stderr, flush=True)
    for line in lines.values():
        line.check_octets()
    return lines


def election_lines(sides: list[str], times: int) -> list[str]:
    """Measure elections and return their table."""
    rows = [
        f"{'elections':12}{'count':>6}{'leader, s':>12}{'most, s':>10}{'timeouts':>12}"
        f"{'write, s':>14}   (kill -9 of the leader; medians)"
    ]
    for side in sides:
        found = cluster_events.elections(side.split()[0], times)
        rows.append(cluster_events.election_row(side, found))
    return rows


def install_lines(sides: list[str], keys: int, times: int) -> list[str]:
    """Measure snapshots for a new member and return their table."""
    rows = [
        f"a snapshot with {keys:,} keys for a new learner; medians of {times}",
        f"{'':12}{'seconds':>10}{'joiner MiB':>12}{'leader +MiB':>13}{'db MiB':>9}{'ratio':>8}",
    ]
    first_s = 0.0
    for side in sides:
        found = [cluster_events.install(side.split()[0], keys) for _ in range(times)]
        seconds = median(one.seconds for one in found)
        first_s = first_s or seconds
        rows.append(
            f"{side:12}{seconds:10.2f}{median(one.joiner_mib for one in found):12.1f}"
            f"{median(one.leader_gained_mib for one in found):13.1f}"
            f"{median(one.size_mib for one in found):9.1f}{seconds / first_s:8.2f}"
        )
    return rows


def disturbance_lines(sides: list[str], mebioctets: int, seconds: float) -> list[str]:
    """Measure puts during a snapshot and return their table."""
    rows = [
        f"puts through the leader at half the rate at most, while a snapshot of {mebioctets} MiB "
        "goes to a new learner; p99 and most in ms",
        f"{'':12}{'puts/s':>9}{'quiet':>9}{'during':>9}{'after':>9}{'most':>10}{'lasts s':>9}"
        f"{'x p99':>8}",
    ]
    for side in sides:
        (quiet, during, after), done = cluster_events.disturbance(
            side.split()[0], mebioctets, seconds
        )
        raised = during.p99_ms / quiet.p99_ms if quiet.p99_ms else 0.0
        rows.append(
            f"{side:12}{quiet.count / seconds:9.0f}{quiet.p99_ms:9.2f}{during.p99_ms:9.2f}"
            f"{after.p99_ms:9.2f}{during.most_ms:10.1f}{done.seconds:9.1f}{raised:8.2f}"
        )
    return rows


def main() -> int:
    """Measure what the command line asks for, print the report and keep it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--workloads", default="", help="parts of names, separated by commas")
    parser.add_argument("--elections", type=int, default=10, help="0: leave them out")
    parser.add_argument("--install-keys", type=int, default=1_000_000, help="0: leave it out")
    parser.add_argument("--install-times", type=int, default=3)
    parser.add_argument("--install-mib", type=int, default=500, help="under load; 0: leave it out")
    parser.add_argument("--quiet-seconds", type=float, default=30.0, help="before that one")
    parser.add_argument("--etcd-only", action="store_true", help="real etcd against itself")
    parser.add_argument("--base-only", action="store_true", help=BASE_ONLY_HELP)
    parser.add_argument("--floor", type=float, default=0.0, help=FLOOR_HELP)
    parser.add_argument("--quick", action="store_true", help="all of it, small")
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(**QUICK)
    options = parser.parse_args()
    parts = [part for part in options.workloads.split(",") if part]
    chosen = [one for one in WORKLOADS if not parts or any(part in one.name for part in parts)]
    sides = sides_here(etcd_only=options.etcd_only, base_only=options.base_only)
    text = [
        *surroundings.describe(),
        f"{options.rounds} rounds of {options.seconds:g} s; clusters of three on this machine; "
        "etcd | etcdtw where two numbers share a column; cpu of all three members, in cores",
        "",
    ]
    lines: dict[str, Line] = {}
    if options.rounds and chosen:
        lines = measure(chosen, options.rounds, options.seconds, sides)
        text += table(lines)
    if options.elections:
        text += ["", *election_lines(sides, options.elections)]
    if options.install_keys:
        text += ["", *install_lines(sides, options.install_keys, options.install_times)]
    if options.install_mib:
        text += ["", *disturbance_lines(sides, options.install_mib, options.quiet_seconds)]
    print("\n".join(text))
    print(f"kept as {surroundings.keep('cluster', text)}")
    slower = slower_than(lines, options.floor)
    print("\n".join(slower))
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
