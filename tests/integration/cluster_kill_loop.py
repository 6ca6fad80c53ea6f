"""Kill -9 of members of a cluster, over and over, with a checker outside.

``python -m tests.integration.cluster_kill_loop --rounds 200 --program etcdtw --tls``

In each round clients work on shared keys, through all members; one member is killed (the leader
every second time), or all of them (one time in ten), or stopped for a while, and comes back.
Then the whole history is checked by `tests.support.revision_order` against the log that a member
tells, every acknowledged write is read at its exact revision, and HashKV must be one.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from etcdtw.wire import etcdserverpb as pb
from tests.differential.operations import PUT, RANGE
from tests.integration.cluster_clients import read_log, run_clients
from tests.support.cluster_processes import (
    ELECTION_S,
    Cluster,
    ClusterMember,
)
from tests.support.cluster_programs import CLUSTER_PROGRAMS
from tests.support.etcd_client import RpcFailedError
from tests.support.revision_order import LogEntry, Operation, RevisionOrderChecker, Write
from tests.support.wire_client import ConnectionFailedError, WireClient

CLIENTS: Final = 8
MEMBERS: Final = 3
LOAD_S: Final = (0.3, 1.0)  # before the fault, and after the member is back
DOWN_S: Final = (0.2, 1.5)
PAUSE_S: Final = (0.5, 3.0)
ALL_PERCENT: Final = 10
LEADER_PERCENT: Final = 50
COMPACTION_EVERY: Final = 5  # rounds
CHECK_BURST: Final = 200
SNAPSHOT_FLAGS: Final = ("--snapshot-count", "500")
ELECTION_TIMEOUTS_MAX: Final = 10  # reliability.md, bar 13


@dataclass(slots=True)
class Tally:
    """What the loop has seen."""

    rounds: int = 0
    operations: int = 0
    acknowledged: int = 0  # writes
    unknown: int = 0  # writes
    resolved: int = 0  # of those, found in the log
    reads: int = 0
    read_back: int = 0  # acknowledged writes read at their exact revision
    hashes: int = 0  # comparisons of all members
    faults: dict[str, int] = field(default_factory=dict)
    new_leader_s: list[float] = field(default_factory=list)
    first_write_s: list[float] = field(default_factory=list)
    restart_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the figures, one a line."""
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        return [
            f"rounds                {self.rounds} ({faults})",
            f"operations            {self.operations}",
            f"acknowledged writes   {self.acknowledged}",
            f"unknown outcomes      {self.unknown}, of which {self.resolved} were made",
            f"reads in the history  {self.reads}",
            f"writes read back      {self.read_back}",
            f"HashKV compared       {self.hashes} times",
            f"to a new leader       {_in_timeouts(self.new_leader_s)}",
            f"to an accepted write  {_in_timeouts(self.first_write_s)}",
            f"restart to serving    {_seconds(self.restart_s)}",
            f"lost or wrong         {len(self.problems)}",
        ]


def _seconds(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"median {median(values):.2f} s, most {max(values):.2f} s ({len(values)} times)"


def _in_timeouts(values: Sequence[float]) -> str:
    if not values:
        return "-"
    middle, most = median(values) / ELECTION_S, max(values) / ELECTION_S
    return f"{_seconds(values)} = {middle:.2f} and {most:.2f} election timeouts"


class ClusterKillLoop:
    """The loop over one cluster, which it starts and ends."""

    def __init__(
        self,
        programs: Sequence[str],
        seed: int,
        *,
        tls: bool = False,
        pause_percent: int = 0,
        plants_stale_reads: bool = False,
    ) -> None:
        self.tally = Tally()
        self._seed = seed
        self._random = random.Random(seed)
        self._pause_percent = pause_percent
        self._plants_stale_reads = plants_stale_reads
        self._refusals: Sequence[str] = ()
        self._cluster = Cluster(programs, flags=SNAPSHOT_FLAGS, tls=tls)
        self._checker = RevisionOrderChecker()
        self._writes: list[Write] = []  # acknowledged, above the compacted revision
        self._probes: list[Write] = []  # of this round, by the loop itself

    def run(self, rounds: int, *, is_quiet: bool = True) -> Tally:
        """Run until ``rounds`` are done or something was lost."""
        tally = self.tally
        is_over = False
        try:
            self._cluster.start()
            while tally.rounds < rounds and not tally.problems:
                told = self._round()
                if not is_quiet:
                    print(told, flush=True)
            self._cluster.check_logs()
            is_over = True
        except (AssertionError, TimeoutError, ConnectionFailedError, RpcFailedError) as error:
            tally.problems.append(f"round {tally.rounds}: {type(error).__name__} {error}"[:3000])
        finally:
            self._cluster.close(keep_logs=bool(tally.problems) or not is_over)
        return tally

    def _round(self) -> str:
        tally = self.tally
        tally.rounds += 1
        before = (tally.acknowledged, tally.unknown, len(tally.new_leader_s))
        fault = self._choose()
        seed = self._seed * 1_000_000 + tally.rounds
        clients = run_clients(
            self._cluster,
            lambda: self._cluster.all,
            CLIENTS,
            seed,
            lambda: self._disturb(fault),
            plants_stale_reads=self._plants_stale_reads,
            refusals=self._refusals,
        )
        operations = [operation for client in clients for operation in client.operations]
        operations += self._probes
        self._probes = []
        tally.problems += [text for client in clients for text in client.problems][:5]
        tally.operations += len(operations)
        writes = [operation for operation in operations if isinstance(operation, Write)]
        acknowledged = [write for write in writes if write.revision]
        tally.acknowledged += len(acknowledged)
        tally.unknown += len(writes) - len(acknowledged)
        tally.reads += len(operations) - len(writes)
        self._writes += acknowledged
        self._check(operations)
        if tally.rounds % COMPACTION_EVERY == 0:
            self._compact()
        tally.faults[fault] = tally.faults.get(fault, 0) + 1
        elected = ""
        if len(tally.new_leader_s) > before[2]:
            elected = f", leader after {tally.new_leader_s[-1]:.2f} s"
        return (
            f"round {tally.rounds}: {fault}{elected}; {tally.acknowledged - before[0]} writes, "
            f"{tally.unknown - before[1]} unknown, revision {self._checker.revision}, "
            f"{len(tally.problems)} problems"
        )

    def _choose(self) -> str:
        chosen = self._random.randrange(100)
        is_leader = self._random.randrange(100) < LEADER_PERCENT
        if chosen < ALL_PERCENT:
            return "all killed"
        verb = "stopped" if chosen < ALL_PERCENT + self._pause_percent else "killed"
        return f"{'leader' if is_leader else 'follower'} {verb}"

    # -- the fault -----------------------------------------------------------------------------

    def _disturb(self, fault: str) -> None:
        cluster = self._cluster
        time.sleep(self._random.uniform(*LOAD_S))
        leader = cluster.leader()
        victims = cluster.all
        if fault != "all killed":
            followers = [member for member in cluster.all if member is not leader]
            victims = [leader if "leader" in fault else self._random.choice(followers)]
        struck = time.monotonic()
        if "stopped" in fault:
            for victim in victims:
                cluster.forget_client(victim)
                victim.pause()
        else:
            cluster.kill(victims)
        if "leader" in fault:
            self._time_election(leader, struck)
        time.sleep(self._random.uniform(*(PAUSE_S if "stopped" in fault else DOWN_S)))
        if "stopped" in fault:
            for victim in victims:
                victim.resume()
        else:
            began = time.monotonic()
            cluster.start_members(victims)
            self.tally.restart_s.append(time.monotonic() - began)
        cluster.leader()
        time.sleep(self._random.uniform(*LOAD_S))

    def _time_election(self, dead: ClusterMember, struck: float) -> None:
        """Measure until another member leads, and until it accepts a write."""
        cluster = self._cluster
        leader, seconds = cluster.time_to_new_leader(dead, struck)
        self.tally.new_leader_s.append(seconds)
        client = cluster.wire_client(leader)
        key = b"probe/%d" % self.tally.rounds
        began = time.monotonic()
        value = b"probe %d" % self.tally.rounds
        stream = client.call(PUT, pb.PutRequest(key=key, value=value).SerializeToString())
        client.close()
        if stream.code == 0:
            self.tally.first_write_s.append(time.monotonic() - struck)
            revision = pb.PutResponse.FromString(stream.messages[0]).header.revision
            write = Write(began, time.monotonic(), [(key, value)], revision, who="probe")
        else:
            write = Write(began, float("inf"), [(key, value)], 0, who="probe")
        self._probes.append(write)

    # -- the checks ----------------------------------------------------------------------------

    def _check(self, operations: list[Operation]) -> None:
        """Check the round against the log of one member, the next round of the next one."""
        cluster, checker, tally = self._cluster, self._checker, self.tally
        revision = cluster.revision()
        member = cluster.all[tally.rounds % len(cluster.all)]
        cluster.wait_applied(revision, [member])
        client = cluster.wire_client(member)
        try:
            log = self._read_log(client, checker.revision + 1, revision)
            tally.problems += checker.check(operations, log)
            tally.resolved = checker.resolved
            self._read_back(client, revision)
        finally:
            client.close()
        cluster.assert_equal(revision)
        tally.hashes += 1

    def _read_log(self, client: WireClient, first: int, last: int) -> list[LogEntry]:
        return read_log(client, first, last)

    def _read_back(self, client: WireClient, revision: int) -> None:
        """Read the acknowledged writes since the last compaction at their exact revisions."""
        pairs = [(change, write) for write in self._writes for change in write.changes]
        for start in range(0, len(pairs), CHECK_BURST):
            burst = pairs[start : start + CHECK_BURST]
            streams = client.begin(
                [
                    (RANGE, pb.RangeRequest(key=key, revision=write.revision).SerializeToString())
                    for (key, _), write in burst
                ]
            )
            client.finish(streams)
            for stream, ((_, value), write) in zip(streams, burst, strict=True):
                if stream.code != 0:
                    self.tally.problems.append(f"{write}: {stream.code} {stream.text}")
                    continue
                answer = pb.RangeResponse.FromString(stream.messages[0])
                self.tally.read_back += 1
                found = [(kv.value, kv.mod_revision) for kv in answer.kvs]
                if found != ([] if value is None else [(value, write.revision)]):
                    self.tally.problems.append(f"{write} reads {found}")
                if answer.header.revision < revision:
                    self.tally.problems.append(
                        f"revision {answer.header.revision} after {revision}"
                    )

    def _compact(self) -> None:
        """Compact at the revision up to which all is checked; the next load meets the deleting."""
        revision = self._checker.revision
        self._cluster.client(self._cluster.leader()).invoke("compact", revision=revision)
        self._checker.forget_below(revision)
        self._writes.clear()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.integration.cluster_kill_loop", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--program", choices=CLUSTER_PROGRAMS, default="etcdtw")
    parser.add_argument("--members", type=int, default=MEMBERS)
    parser.add_argument("--programs", help="one for each member, separated by commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tls", action="store_true", help="certificates for peers and clients")
    parser.add_argument("--pause-percent", type=int, default=0, help="of rounds: SIGSTOP instead")
    options = parser.parse_args()
    programs = [options.program] * options.members
    if options.programs:
        programs = options.programs.split(",")
    loop = ClusterKillLoop(
        programs, options.seed, tls=options.tls, pause_percent=options.pause_percent
    )
    tally = loop.run(options.rounds, is_quiet=False)
    for problem in tally.problems[:20]:
        print(problem)
    print("\n".join([f"programs              {' '.join(programs)}", *tally.lines()]))
    return 1 if tally.problems or tally.rounds < options.rounds else 0


if __name__ == "__main__":
    sys.exit(main())
