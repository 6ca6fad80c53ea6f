"""A real Prometheus on a loaded cluster of three over TLS: etcd's dashboards and alerts.

``python -m tests.integration.prometheus_loop --program etcdtw``

Each expression of etcd's dashboards, and what each of its alerts compares, has a series with a
number; no alert fires while all is well; each fires when its cause is there, and not before.  Their
windows and their patience are shortened (`tests.support.prometheus.SHORTENED`); all else is etcd's.
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
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
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
WELL_S: Final = 60.0
"""How long nothing may fire before anything is done to the cluster."""
FIRES_S: Final = 150.0
"""Within which an alert fires once its cause is there."""
SILENT_S: Final = 120.0
"""Within which an alert falls silent when what was there before is over."""
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
FAILED_CALLS: Final = (
    "etcdHighNumberOfFailedGRPCRequests_warning",
    "etcdHighNumberOfFailedGRPCRequests_critical",
)
SLOW_DISK: Final = (
    "etcdHighFsyncDurations_warning",
    "etcdHighFsyncDurations_critical",
    "etcdHighCommitDurations_warning",
)
NO_QUORUM: Final = (
    "etcdMembersDown_critical",
    "etcdInsufficientMembers_critical",
    "etcdNoLeader_critical",
)
NO_SPACE: Final = ("etcdExcessiveDatabaseGrowth_warning", "etcdDatabaseQuotaLowSpace_critical")
Failed = (RpcFailedError, OSError, ValueError)


@dataclass
class Findings:
    """What was seen."""

    missing: list[str] = field(default_factory=list)
    fired_while_well: set[str] = field(default_factory=set)
    fired: dict[str, float] = field(default_factory=dict)
    """Seconds from its cause, by alert."""
    silent: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    """Those that fired before their cause was there."""
    expressions: int = 0

    @property
    def is_good(self) -> bool:
        return not (self.missing or self.fired_while_well or self.silent or self.early)

    def lines(self) -> list[str]:
        """Return what is printed."""
        found = [f"NO SERIES: {expression}" for expression in self.missing]
        found += [f"FIRED WHILE ALL WAS WELL: {name}" for name in sorted(self.fired_while_well)]
        found += [f"{name} fired after {took_s:.0f} s" for name, took_s in self.fired.items()]
        found += [f"DID NOT FIRE: {name}" for name in self.silent]
        found += [f"FIRED BEFORE ITS CAUSE: {name}" for name in self.early]
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

    def see(self, cause: AbstractContextManager[None], *names: str) -> None:
        """See that these alerts are silent before ``cause`` is there, and fire then."""
        deadline = time.monotonic() + SILENT_S
        while (early := set(names) & self._prometheus.firing()) and time.monotonic() < deadline:
            time.sleep(1)
        self._findings.early += sorted(early)
        with cause:
            self._fire(set(names))

    def _fire(self, left: set[str]) -> None:
        """Wait until these alerts have fired."""
        began_s = time.monotonic()
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

    @contextmanager
    def refused_calls(self) -> Iterator[None]:
        """Calls of one method all fail: a follower cannot hand over what it does not have."""
        follower = self._cluster.followers()[0]
        with self._cluster.new_client(follower) as client:

            def ask() -> None:
                client.invoke("move_leader", targetID=1)

            with self.again(ask):
                yield

    @contextmanager
    def slow_calls(self) -> Iterator[None]:
        """Who waits for a lock waits long."""
        with self._cluster.new_client(self._cluster.leader()) as client:
            request = v3lockpb.LockRequest(name=b"held").SerializeToString()
            client.raw_unary(LOCK, request, 10.0)

            def wait() -> None:
                client.raw_unary(LOCK, request, 1.0)

            with self.again(wait):
                yield

    @contextmanager
    def many_leaders(self) -> Iterator[None]:
        """The leadership goes around."""

        def move() -> None:
            leader = self._cluster.leader()
            target = next(one for one in self._cluster.all if one is not leader)
            status = self._cluster.status(target)
            with self._cluster.new_client(leader) as client:
                client.invoke("move_leader", targetID=status.header.member_id)

        with self.again(move, 2.0):
            yield

    @contextmanager
    def slow_peers(self) -> Iterator[None]:
        """A member answers late: it is stopped for a while, and again."""
        follower = self._cluster.followers()[0]

        def pause() -> None:
            follower.pause()
            time.sleep(PAUSED_S)
            follower.resume()

        with self.again(pause, RUNNING_S):
            yield

    @contextmanager
    def slow_disk(self, knob: Path) -> Iterator[None]:
        """Each flush takes more than a second."""
        knob.write_text(str(SLOW_DISK_MS))
        try:
            yield
        finally:
            knob.write_text("0")

    @contextmanager
    def fragments(self) -> Iterator[None]:
        """Much is written, and most of it deleted."""
        with self._cluster.new_client(self._cluster.leader()) as client:
            for number in range(FILL_KEYS):
                _insist(client, pb.PutRequest(key=b"big/%06d" % number, value=bytes(MIB)))
            first = b"big/%06d" % KEPT_KEYS
            deleted = client.invoke("delete_range", key=first, range_end=b"big0")
            client.invoke("compact", revision=deleted.header.revision)
            yield

    @contextmanager
    def no_quorum(self) -> Iterator[None]:
        """Two of three members die."""
        self._cluster.kill(self._cluster.all[1:])
        yield

    @contextmanager
    def lost_puts(self) -> Iterator[None]:
        """Without a quorum many puts wait for nothing."""
        with self._cluster.new_client(self._cluster.all[0]) as client:

            def put_many() -> None:
                threads = [
                    threading.Thread(target=_lost_put, args=(client, number), daemon=True)
                    for number in range(LOST_PUTS)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(30)

            with self.again(put_many):
                yield

    @contextmanager
    def no_space(self) -> Iterator[None]:
        """The quota is filled."""
        with self._cluster.new_client(self._cluster.leader()) as client:
            numbers = count()

            def fill() -> None:
                client.put(b"fill/%06d" % next(numbers), bytes(MIB // 4))

            with self.again(fill, 0.2):
                yield


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
                loop.see(loop.refused_calls(), *FAILED_CALLS)
                loop.see(loop.slow_calls(), "etcdGRPCRequestsSlow_critical")
                loop.see(loop.many_leaders(), "etcdHighNumberOfLeaderChanges_warning")
                loop.see(loop.slow_peers(), "etcdMemberCommunicationSlow_warning")
                loop.see(loop.slow_disk(knob), *SLOW_DISK)
            loop.see(loop.fragments(), "etcdDatabaseHighFragmentationRatio_warning")
            loop.see(loop.no_quorum(), *NO_QUORUM)
            loop.see(loop.lost_puts(), "etcdHighNumberOfFailedProposals_warning")
        flags = ["--metrics=extensive", f"--quota-backend-bytes={SMALL_QUOTA}"]
        small = Cluster([program] * 3, flags=flags, tls=True)
        with small, Prometheus(prometheus, small, folder / "small") as scraping:
            time.sleep(5)
            loop = Loop(scraping, small, findings)
            loop.see(loop.no_space(), *NO_SPACE)
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
