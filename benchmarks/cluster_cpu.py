"""Processor time of a call in a cluster of three: ``python -m benchmarks.cluster_cpu``.

Rates of a cluster on few cores move by a tenth from one second to the next; the processor time of
a call moves less.  The sides take turns in parts; ``ETCDTW_BASE`` names the twistd of an earlier
build.  A follower's numbers are the mean of both.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.cluster import SETTLE_S, WORKLOADS, begin, load, pause, resume
from benchmarks.side_by_side import ETCDTW, sides_here
from tests.support.cluster_processes import Cluster
from tests.support.processes import BASE

PART_S: Final = 2.0
CHOICES: Final = {one.name: one for one in WORKLOADS}

Spent = Counter[tuple[str, str]]
"""Nanoseconds by (role, process or thread)."""


def spent(cluster: Cluster) -> Spent:
    """Return what all processes have used so far."""
    leader = cluster.leader()
    found: Spent = Counter()
    for member in cluster.all:
        role = "leader" if member is leader else "follower"
        for pid in member.pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                if pid != member.pid:
                    name = "writer"
                else:
                    name = "reactor" if task.name == str(pid) else "its threads"
                used_ns = int((task / "schedstat").read_text().split()[0])
                found[role, name] += used_ns if member is leader else used_ns // 2
    return found


def report(side: str, rates: list[float], used: Spent, calls: int) -> str:
    """Return one line: the rates of the parts, and microseconds of a call by process."""
    each = {key: value / 1000 / calls for key, value in sorted(used.items())}
    whole = sum(us * (2 if role == "follower" else 1) for (role, _), us in each.items())
    told = ", ".join(f"{role} {name} {us:.2f}" for (role, name), us in each.items())
    return (
        f"{side:8} {[round(rate) for rate in rates]} a second; us a call: {told}; all {whole:.1f}"
    )


def main() -> int:
    """Measure what the command line asks for and print a line for each side."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster_cpu", description=__doc__)
    parser.add_argument("--workload", choices=CHOICES, default=WORKLOADS[0].name)
    parser.add_argument("--parts", type=int, default=6, help="each of two seconds")
    options = parser.parse_args()
    sides = [side for side in sides_here() if side in (ETCDTW, BASE)]
    used: dict[str, Spent] = {side: Counter() for side in sides}
    calls: Counter[str] = Counter()
    rates: dict[str, list[float]] = {side: [] for side in sides}
    with ExitStack() as stack:
        clusters = {side: begin(stack, side) for side in sides}
        for part in range(options.parts):
            for side in sides if part % 2 else sides[::-1]:
                cluster = clusters[side]
                resume(cluster)
                before = spent(cluster)
                result, _ = load(CHOICES[options.workload], cluster, PART_S)
                time.sleep(SETTLE_S)  # followers end what they were sent
                used[side] += spent(cluster) - before
                calls[side] += result.count
                rates[side].append(result.rate)
                pause(cluster)
        for cluster in clusters.values():
            resume(cluster)
    for side in sides:
        print(report(side, rates[side], used[side], calls[side]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
