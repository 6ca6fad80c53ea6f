"""A real Prometheus on a loaded cluster of three over TLS: etcd's dashboards and alerts.

``python -m tests.integration.prometheus_loop --program etcdtw``

Each expression of etcd's dashboards, and what each of its alerts compares, has a series with a
number; no alert fires while all is well; each fires when its cause is there.  Their windows are
shortened and their patience is left out (`tests.support.prometheus.SHORTENED`); all else is etcd's.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import v3lockpb
from tests.support.cluster_processes import Cluster, ClusterMember
from tests.support.crashlab.recording import compiler
from tests.support.etcd_client import EtcdClient, RpcFailedError
from tests.support.prometheus import (
    Prometheus,
    alerts,
    find_prometheus,
    panel_expressions,
    shortened,
)

MIB: Final = 1 << 20
SERIES_S: Final = 60.0
"""Within which every expression has a series."""
WELL_S: Final = 40.0
"""How long nothing may fire before anything is done to the cluster."""
FIRES_S: Final = 90.0
"""Within which an alert fires once its cause is there."""
LOAD_PAUSE_S: Final = 0.02
KEYS: Final = 50
COMPACT_EACH: Final = 500
TTL_S: Final = 30
SLOW_DISK_MS: Final = 1_300
PAUSED_S: Final = 0.6
RUNNING_S: Final = 0.4
SMALL_QUOTA: Final = 24 * MIB
FILL_KEYS: Final = 340
"""Of a MiB each; then so many go that more than 100 MiB and less than half stay in use."""
KEPT_KEYS: Final = 125
LOST_PUTS: Final = 200
TRIES_MAX: Final = 30
LOCK: Final = "/v3lockpb.Lock/Lock"
NOT_BEGUN: Final = (
    "etcdMembersDown_critical",
    "etcdInsufficientMembers_critical",
    "etcdNoLeader_critical",
)
Failed = (RpcFailedError, OSError, ValueError)


@dataclass
class Findings:
    """What was seen."""

    missing: list[str] = field(default_factory=list)
    fired_while_well: set[str] = field(default_factory=set)
    fired: dict[str, float] = field(default_factory=dict)
    """Seconds from its cause, by alert."""
    silent: list[str] = field(default_factory=list)
    expressions: int = 0

    @property
    def is_good(self) -> bool:
        return not (self.missing or self.fired_while_well or self.silent)

    def lines(self) -> list[str]:
        """Return what is printed."""
        found = [f"NO SERIES: {expression}" for expression in self.missing]
        found += [f"FIRED WHILE ALL WAS WELL: {name}" for name in sorted(self.fired_while_well)]
        found += [f"{name} fired after {took_s:.0f} s" for name, took_s in self.fired.items()]
        found += [f"DID NOT FIRE: {name}" for name in self.silent]
        with_series = self.expressions - len(self.missing)
        found.append(
            f"{self.expressions} expressions, {with_series} with a series; "
            f"{len(alerts())} alerts, {len(self.fired)} fired, "
            f"{len(self.fired_while_well)} while all was well"
        )
        return found


class Load:
    """Puts, ranges, watches and leases through every member, until the block ends."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(member,), daemon=True)
            for member in cluster.all
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self, member: ClusterMember) -> None:
        while not self._over.is_set():
            with suppress(*Failed), self._cluster.new_client(member) as client:
                self._load(client)
            self._over.wait(0.5)

    def _load(self, client: EtcdClient) -> None:
        watch = client.watch()
        watch.create(b"load/", range_end=b"load0")
        lease_id = client.invoke("lease_grant", TTL=TTL_S).ID
        number = 0
        try:
            while not self._over.wait(LOAD_PAUSE_S):
                number += 1
                key = b"load/%d" % (number % KEYS)
                revision = client.put(key, b"v" * 64, lease=lease_id).header.revision
                client.range(key)
                if number % 50 == 0:
                    client.keep_alive([lease_id])
                if number % COMPACT_EACH == 0:
                    with suppress(RpcFailedError):
                        client.invoke("compact", revision=revision)
        finally:
            watch.close()


class Loop:
    """The alerts of one Prometheus, each with its cause."""

    def __init__(self, prometheus: Prometheus, cluster: Cluster, findings: Findings) -> None:
        self._prometheus = prometheus
        self._cluster = cluster
        self._findings = findings

    def all_series(self) -> None:
        """See that every expression has a series."""
        wanted = [shortened(one) for one in panel_expressions()] + [one.value for one in alerts()]
        self._findings.expressions = len(wanted)
        deadline = time.monotonic() + SERIES_S
        missing = wanted
        while missing and time.monotonic() < deadline:
            time.sleep(1)
            missing = [one for one in missing if not self._prometheus.query(one)]
        self._findings.missing = missing

    def all_is_well(self) -> None:
        """See that no alert fires."""
        deadline = time.monotonic() + WELL_S
        while time.monotonic() < deadline:
            self._findings.fired_while_well |= self._prometheus.firing()
            time.sleep(1)

    def fires(self, *names: str, began_s: float | None = None) -> None:
        """Wait until these alerts have fired."""
        began_s = time.monotonic() if began_s is None else began_s
        left = set(names)
        while left and time.monotonic() - began_s < FIRES_S:
            for name in left & self._prometheus.firing():
                left.discard(name)
                self._findings.fired[name] = time.monotonic() - began_s
                print(f"  {name} fired", flush=True)
            time.sleep(0.5)
        self._findings.silent += sorted(left)
        for name in sorted(left):
            print(f"  {name} DID NOT FIRE", flush=True)

    @contextmanager
    def again(self, cause: Callable[[], None], pause_s: float = 0.1) -> Iterator[None]:
        """Bring ``cause`` about again and again while the block runs."""
        over = threading.Event()

        def run() -> None:
            while not over.is_set():
                with suppress(*Failed):
                    cause()
                over.wait(pause_s)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(20)

    def refused_calls(self) -> None:
        """Calls of one method all fail: a follower cannot hand over what it does not have."""
        follower = self._cluster.followers()[0]
        with self._cluster.new_client(follower) as client:

            def ask() -> None:
                client.invoke("move_leader", targetID=1)

            with self.again(ask):
                name = "etcdHighNumberOfFailedGRPCRequests"
                self.fires(f"{name}_warning", f"{name}_critical")

    def slow_calls(self) -> None:
        """Who waits for a lock waits long."""
        with self._cluster.new_client(self._cluster.leader()) as client:
            request = v3lockpb.LockRequest(name=b"held").SerializeToString()
            client.raw_unary(LOCK, request, 10.0)

            def wait() -> None:
                client.raw_unary(LOCK, request, 1.0)

            with self.again(wait):
                self.fires("etcdGRPCRequestsSlow_critical")

    def many_leaders(self) -> None:
        """The leadership goes around."""

        def move() -> None:
            leader = self._cluster.leader()
            target = next(one for one in self._cluster.all if one is not leader)
            status = self._cluster.status(target)
            with self._cluster.new_client(leader) as client:
                client.invoke("move_leader", targetID=status.header.member_id)

        with self.again(move, 2.0):
            self.fires("etcdHighNumberOfLeaderChanges_warning")

    def slow_peers(self) -> None:
        """A member answers late: it is stopped for a while, and again."""
        follower = self._cluster.followers()[0]

        def pause() -> None:
            follower.pause()
            time.sleep(PAUSED_S)
            follower.resume()

        with self.again(pause, RUNNING_S):
            self.fires("etcdMemberCommunicationSlow_warning")

    def slow_disk(self, knob: Path) -> None:
        """Each flush takes more than a second."""
        knob.write_text(str(SLOW_DISK_MS))
        try:
            name = "etcdHighFsyncDurations"
            self.fires(f"{name}_warning", f"{name}_critical", "etcdHighCommitDurations_warning")
        finally:
            knob.write_text("0")

    def fragments(self) -> None:
        """Much is written, and most of it deleted."""
        with self._cluster.new_client(self._cluster.leader()) as client:
            for number in range(FILL_KEYS):
                _insist(client, pb.PutRequest(key=b"big/%06d" % number, value=bytes(MIB)))
            began_s = time.monotonic()
            first = b"big/%06d" % KEPT_KEYS
            deleted = client.invoke("delete_range", key=first, range_end=b"big0")
            client.invoke("compact", revision=deleted.header.revision)
            self.fires("etcdDatabaseHighFragmentationRatio_warning", began_s=began_s)

    def lost_quorum(self) -> None:
        """Two of three members die."""
        survivor, *others = self._cluster.all
        began_s = time.monotonic()
        self._cluster.kill(others)
        with self._cluster.new_client(survivor) as client:
            self.fires(*NOT_BEGUN, began_s=began_s)
            threads = [
                threading.Thread(target=_lost_put, args=(client, number), daemon=True)
                for number in range(LOST_PUTS)
            ]
            began_s = time.monotonic()
            for thread in threads:
                thread.start()
            self.fires("etcdHighNumberOfFailedProposals_warning", began_s=began_s)
            for thread in threads:
                thread.join(30)

    def no_space(self) -> None:
        """The quota is filled."""
        with self._cluster.new_client(self._cluster.leader()) as client:
            number = 0

            def fill() -> None:
                nonlocal number
                number += 1
                client.put(b"fill/%06d" % number, bytes(MIB // 4))

            with self.again(fill, 0.2):
                growing = "etcdExcessiveDatabaseGrowth_warning"
                self.fires(growing, "etcdDatabaseQuotaLowSpace_critical")


def _insist(client: EtcdClient, put: pb.PutRequest) -> None:
    """Put, again and again: the disks have much to do."""
    for _ in range(TRIES_MAX):
        with suppress(RpcFailedError):
            client.call("put", put, timeout_s=60.0)
            return
        time.sleep(1)
    raise TimeoutError("nothing can be put")


def _lost_put(client: EtcdClient, number: int) -> None:
    with suppress(*Failed):
        client.call("put", pb.PutRequest(key=b"lost/%d" % number), timeout_s=30.0)


def run(program: str, prometheus: str) -> Findings:
    """Run everything; raises what keeps it from being seen."""
    findings = Findings()
    folder = Path(tempfile.mkdtemp(prefix="prometheus-"))
    try:
        knob = folder / "slow"
        knob.write_text("0")
        slow = {"LD_PRELOAD": str(_slow_disk(folder)), "SLOW_DISK": str(knob)}
        cluster = Cluster([program] * 3, flags=["--metrics=extensive"], tls=True)
        cluster.all[-1].environment = slow
        with cluster, Prometheus(prometheus, cluster, folder / "large") as scraping:
            loop = Loop(scraping, cluster, findings)
            with Load(cluster):
                print("every expression has a series", flush=True)
                loop.all_series()
                print("no alert while all is well", flush=True)
                loop.all_is_well()
                print("causes", flush=True)
                loop.refused_calls()
                loop.slow_calls()
                loop.many_leaders()
                loop.slow_peers()
                loop.slow_disk(knob)
            loop.fragments()
            loop.lost_quorum()
        flags = ["--metrics=extensive", f"--quota-backend-bytes={SMALL_QUOTA}"]
        small = Cluster([program] * 3, flags=flags, tls=True)
        with small, Prometheus(prometheus, small, folder / "small") as scraping:
            time.sleep(5)
            Loop(scraping, small, findings).no_space()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return findings


def _slow_disk(folder: Path) -> Path:
    """Compile the library that slows a disk down."""
    source = Path(__file__).resolve().parent.parent / "support" / "slow_disk.c"
    library = folder / "slow_disk.so"
    command = [str(compiler()), "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def main() -> int:
    """Run the loop; 1 when something is missing, 2 when it cannot be run."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.integration.prometheus_loop", description=__doc__
    )
    parser.add_argument("--program", choices=("etcdtw", "etcd"), default="etcdtw")
    options = parser.parse_args()
    prometheus = find_prometheus()
    if prometheus is None or compiler() is None:
        print("NO PROMETHEUS, OR NO C COMPILER: see tests/support/prometheus.py")
        return 2
    findings = run(options.program, prometheus)
    print("\n".join(findings.lines()))
    return 0 if findings.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
