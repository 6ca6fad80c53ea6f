"""Filling and freeing the disks of a cluster under load, with a checker outside.

``python -m tests.integration.full_disk_loop --rounds 50``

Each member has two small disks (tmpfs; needs root): its log's and its state's.  In each round
clients work on shared keys through all members while some disks run full, by a filler of 50 MB/s
or by the cluster's own writes, and are freed again.  Then everybody must take part again, the
whole history is checked by `tests.support.revision_order`, every acknowledged write is read at
its exact revision, HashKV must be one, and nobody may have died.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

from etcdtw.wire import etcdserverpb as pb
from tests.differential.operations import PUT, WATCH
from tests.integration.cluster_kill_loop import ClusterKillLoop, Tally
from tests.support.cluster_processes import ClusterMember, wait_for
from tests.support.etcd_client import RpcFailedError
from tests.support.revision_order import LogEntry, Operation, Write
from tests.support.wire_client import ConnectionFailedError, WireClient

MIB: Final = 1 << 20
LOG: Final = "log"
STATE: Final = "state"
DISK_OCTETS: Final = {LOG: 128 * MIB, STATE: 256 * MIB}
FILL_RATE: Final = 50_000_000  # octets a second
FILL_STEP: Final = 1_000_000  # octets
QUIET_S: Final = 0.5
FULL_S: Final = 4.0
PRESSED_S: Final = 10.0
"""How long a disk stays full in rounds in which its member is to use up its reserve."""
PRESSING_OCTETS: Final = 32 * 1024
PRESSING_PAUSE_S: Final = 0.1
OWN_FILL_S: Final = 60.0
OWN_VALUE: Final = {LOG: 256 * 1024, STATE: 32 * 1024}  # octets
OWN_CALLS: Final = 8  # puts under way
OWN_KEYS: Final = 64
RECOVERED_S: Final = 60.0
NO_SPACE: Final = "etcdserver: mvcc: database space exceeded"
GAP_MAX_S: Final = 8.0
"""Without an acknowledged write while a quorum has room, on a machine that others use as well."""
FLAGS: Final = ("--snapshot-count", "5000", "--snapshot-catchup-entries", "10000")
TARGETS: Final = ("leader", "follower", "two", "all")
OWN_WRITES: Final = "own writes"
FILLER: Final = "filler"
PRESSED: Final = "filler beside writes"
PRESSED_ROUNDS: Final = (1, 3)  # of five


class NoMountsError(Exception):
    """This user may not mount small disks."""


class Disks:
    """One small disk for each member and place; a context manager."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="full-disk-"))
        self._mounted: list[Path] = []

    def __enter__(self) -> Disks:
        return self

    def __exit__(self, *_: object) -> None:
        for path in reversed(self._mounted):
            subprocess.run(["umount", "-l", str(path)], check=False)
            path.rmdir()
        self.folder.rmdir()

    def mount(self, name: str, place: str) -> Path:
        """Return a folder on a disk of its own.  Raises `NoMountsError`."""
        path = self.folder / f"{name}-{place}"
        path.mkdir()
        options = f"size={DISK_OCTETS[place]},mode=0700"
        try:
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)],
                capture_output=True,
                text=True,
                check=False,
            )
            why = done.stderr.strip() if done.returncode else ""
        except OSError as error:
            why = str(error)
        if why:
            path.rmdir()
            raise NoMountsError(f"no small disk can be mounted: {why}")
        self._mounted.append(path)
        return path


def filler_path(disk: Path) -> Path:
    return disk / "filler"


def fill(disk: Path, until: float) -> None:
    """Write at `FILL_RATE` until the disk is full, and keep it full until that time."""
    step = bytes(FILL_STEP)
    with filler_path(disk).open("ab", buffering=0) as file:
        began, written = time.monotonic(), 0
        while time.monotonic() < until:
            try:
                written += file.write(step)
            except OSError:
                time.sleep(0.02)  # full: whatever is freed is taken as well
                continue
            time.sleep(max(0.0, began + written / FILL_RATE - time.monotonic()))


class OwnWriter(threading.Thread):
    """Puts large values until it is told to stop; `writes` is what it did."""

    def __init__(self, loop: FullDiskLoop, octets: int, pause_s: float = 0.0) -> None:
        super().__init__(daemon=True)
        self._pause_s = pause_s
        self._loop = loop
        self._value = bytes(octets)
        self._is_told_to_stop = threading.Event()
        self.writes: list[Write] = []
        self.refused = 0
        self.met_full_disk = threading.Event()

    def pause(self) -> None:
        """End the load; `stop` is to follow."""
        self._is_told_to_stop.set()

    def stop(self) -> None:
        self._is_told_to_stop.set()
        self.join()

    def run(self) -> None:
        at, number = 0, 0
        client: WireClient | None = None
        while not self._is_told_to_stop.is_set():
            try:
                if client is None:
                    client = self._loop.wire_client(at)
                time.sleep(self._pause_s)
                number += OWN_CALLS
                self._burst(client, number)
            except (ConnectionFailedError, OSError):
                if client is not None:
                    client.close()
                client, at = None, at + 1
                time.sleep(0.1)
        if client is not None:
            client.close()

    def _burst(self, client: WireClient, number: int) -> None:
        rounds = self._loop.tally.rounds
        pairs = [
            (b"own/%d" % ((number + i) % OWN_KEYS), b"%d.%d " % (rounds, number + i) + self._value)
            for i in range(OWN_CALLS)
        ]
        began = time.monotonic()
        streams = client.begin(
            [(PUT, pb.PutRequest(key=key, value=value).SerializeToString()) for key, value in pairs]
        )
        try:
            client.finish(streams)
        finally:
            ended = time.monotonic()
            for stream, pair in zip(streams, pairs, strict=True):
                if stream.code == 0 and stream.messages:
                    revision = pb.PutResponse.FromString(stream.messages[0]).header.revision
                    self.writes.append(Write(began, ended, [pair], revision, who="own"))
                elif stream.text == NO_SPACE:
                    self.refused += 1
                    self.met_full_disk.set()
                else:
                    self.writes.append(Write(began, float("inf"), [pair], 0, who="own"))
        if self.met_full_disk.is_set():
            time.sleep(0.1)


class Recorder(threading.Thread):
    """Follows a watch of everything: a compaction will take what it tells."""

    def __init__(self, client: WireClient, first: int) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._first = first
        self._is_told_to_stop = threading.Event()
        self.entries: dict[int, LogEntry] = {}
        self.trouble = ""

    def run(self) -> None:
        client = self._client
        stream = client.open(WATCH)
        create = pb.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=self._first)
        client.send(stream, pb.WatchRequest(create_request=create).SerializeToString())
        while not self._is_told_to_stop.is_set() and not self.trouble:
            try:
                client.poll(0.2)
            except (ConnectionFailedError, OSError) as error:
                self.trouble = str(error)
            for message in stream.take_messages():
                response = pb.WatchResponse.FromString(message)
                if response.canceled:
                    self.trouble = f"the watch for the log ended: {response}"
                for event in response.events:
                    revision = event.kv.mod_revision
                    entry = self.entries.setdefault(revision, LogEntry(revision))
                    value = event.kv.value if event.type == 0 else None
                    entry.changes.append((event.kv.key, value))
        client.close()

    def stop(self, last: int) -> list[LogEntry]:
        """Return all up to a revision, which it must tell."""
        wait_for(
            lambda: bool(self.trouble) or last in self.entries,
            RECOVERED_S,
            f"the watch tells revision {last}",
        )
        self._is_told_to_stop.set()
        self.join()
        if self.trouble:
            raise ConnectionFailedError(self.trouble)
        return [self.entries[revision] for revision in sorted(self.entries) if revision <= last]


class FullDiskLoop(ClusterKillLoop):
    """The loop over one cluster of three, which it starts and ends."""

    def __init__(self, disks: Disks, seed: int) -> None:
        super().__init__(["etcdtw"] * 3, seed)
        self._refusals = (NO_SPACE,)
        self._disks: dict[str, dict[str, Path]] = {LOG: {}, STATE: {}}
        for member in self._cluster.all:
            for place, paths in self._disks.items():
                paths[member.name] = disks.mount(member.name, place)
            member.data_dir = self._disks[STATE][member.name] / "data"
            log_folder = self._disks[LOG][member.name] / "wal"
            member.flags = [*FLAGS, "--wal-dir", str(log_folder)]
        self._window = (0.0, 0.0)
        self._own: OwnWriter | None = None
        self._own_compacted = 0
        self._hindrance = ""
        """Why a member did not take part again when it was asked last."""
        self._recorder: Recorder | None = None
        self.gaps_s: list[float] = []
        """The longest one of each round in which a quorum had room."""
        self.recovered_s: list[float] = []
        self.shortages = 0
        self.alarms = 0
        """Rounds in which NOSPACE was seen."""
        self.own_refusals = 0

    def wire_client(self, at: int) -> WireClient:
        members = self._cluster.all
        return self._cluster.wire_client(members[at % len(members)], 10.0)

    def lines(self) -> list[str]:
        """Return the figures, one a line."""
        gaps, recovered = sorted(self.gaps_s) or [0.0], sorted(self.recovered_s) or [0.0]
        return [
            *self.tally.lines(),
            f"shortages             {self.shortages} (of single members)",
            f"rounds with NOSPACE   {self.alarms}",
            f"own writes refused    {self.own_refusals}",
            f"without a write       median {median(gaps):.2f} s, most {gaps[-1]:.2f} s, "
            f"in {len(self.gaps_s)} rounds in which a quorum had room",
            f"all back after        median {median(recovered):.2f} s, most {recovered[-1]:.2f} s",
        ]

    def _choose(self) -> str:
        number = self.tally.rounds - 1
        place = (LOG, STATE)[number % 2]
        if number % 5 == 4:
            return f"{place}: {OWN_WRITES}"
        pressed = PRESSED if number % 5 in PRESSED_ROUNDS else FILLER
        return f"{place}: {pressed} at {TARGETS[(number // 2) % len(TARGETS)]}"

    # -- the fault -----------------------------------------------------------------------------

    def _disturb(self, fault: str) -> None:
        place, _, how = fault.partition(": ")
        time.sleep(QUIET_S)
        began = time.monotonic()
        if how == OWN_WRITES:
            self._fill_by_own_writes(place)
            freed = time.monotonic()
            self._free_by_compaction()
        else:
            victims = self._victims(how.rsplit(" ", 1)[1])
            is_pressed = how.startswith(PRESSED)
            if is_pressed:
                self._own = OwnWriter(self, PRESSING_OCTETS, PRESSING_PAUSE_S)
                self._own.start()
            self._fill_by_filler(place, victims, PRESSED_S if is_pressed else FULL_S)
            freed = time.monotonic()
            if self._own is not None:
                self._own.pause()
            for victim in victims:
                filler_path(self._disks[place][victim.name]).unlink()
            if len(victims) == 1:
                self._window = (began, freed)
        self._await_recovery(freed)
        time.sleep(QUIET_S)
        if self._own is not None:
            own, self._own = self._own, None
            own.stop()
            self._probes += own.writes
            self.own_refusals += own.refused

    def _victims(self, target: str) -> list[ClusterMember]:
        leader = self._cluster.leader()
        followers = [member for member in self._cluster.all if member is not leader]
        return {
            "leader": [leader],
            "follower": [self._random.choice(followers)],
            "two": [leader, followers[0]],
            "all": self._cluster.all,
        }[target]

    def _fill_by_filler(self, place: str, victims: Sequence[ClusterMember], full_s: float) -> None:
        until = time.monotonic() + DISK_OCTETS[place] / FILL_RATE + full_s
        threads = [
            threading.Thread(target=fill, args=(self._disks[place][victim.name], until))
            for victim in victims
        ]
        for thread in threads:
            thread.start()
        self._watch_alarms(until)
        for thread in threads:
            thread.join()

    def _watch_alarms(self, until: float) -> None:
        is_raised = False
        while time.monotonic() < until:
            time.sleep(0.25)
            is_raised = is_raised or any(member.name in self._raised() for member in self._alive())
        self.alarms += is_raised

    def _fill_by_own_writes(self, place: str) -> None:
        leader = self._cluster.leader()
        client = self._cluster.wire_client(leader, RECOVERED_S)
        self._recorder = Recorder(client, self._checker.revision + 1)
        self._recorder.start()
        own = self._own = OwnWriter(self, OWN_VALUE[place])
        own.start()
        own.met_full_disk.wait(OWN_FILL_S)
        self._watch_alarms(time.monotonic() + FULL_S)

    def _free_by_compaction(self) -> None:
        """Delete what fills the state; the own writer goes on meanwhile."""
        deadline = time.monotonic() + RECOVERED_S
        while True:
            try:
                client = self._cluster.client(self._cluster.leader())
                revision = client.range(b"\0", count_only=True).header.revision
                client.invoke("compact", revision=revision, physical=True)
                self._own_compacted = revision
                return
            except RpcFailedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    # -- back again ----------------------------------------------------------------------------

    def _alive(self) -> list[ClusterMember]:
        for member in self._cluster.all:
            assert member.is_running, (
                f"{member.name} died with status {member.exit_status}: {member.stderr()[-2000:]}"
            )
        return self._cluster.all

    def _raised(self) -> set[str]:
        """Return the names of the members that say that they are short."""
        return {member.name for member in self._alive() if disk_status(member) not in (200, 0)}

    def _await_recovery(self, freed: float) -> None:
        for member in self._alive():
            self._hindrance = "not asked"
            try:
                wait_for(
                    lambda member=member: self._takes_part(member),  # type: ignore[misc]
                    RECOVERED_S,
                    f"{member.name} takes part again",
                )
            except TimeoutError as error:
                raise TimeoutError(f"{error}; at last: {self._hindrance}") from None
        self.recovered_s.append(time.monotonic() - freed)

    def _takes_part(self, member: ClusterMember) -> bool:
        self._alive()
        status = disk_status(member)
        if status != 200:
            self._hindrance = f"the check of its disk has status {status}"
            time.sleep(0.1)
            return False
        key, value = b"back/" + member.name.encode(), b"%d" % time.monotonic_ns()
        began = time.monotonic()
        try:
            client = self._cluster.wire_client(member, 8.0)
        except OSError as error:
            self._hindrance = f"no connection: {error}"
            return False
        try:
            stream = client.call(PUT, pb.PutRequest(key=key, value=value).SerializeToString())
        except (ConnectionFailedError, OSError) as error:
            self._hindrance = f"a put has no answer: {error}"
            self._probes.append(Write(began, float("inf"), [(key, value)], 0, who="back"))
            return False
        finally:
            client.close()
        if stream.code == 0:
            revision = pb.PutResponse.FromString(stream.messages[0]).header.revision
            ended = time.monotonic()
            self._probes.append(Write(began, ended, [(key, value)], revision, who="back"))
            return True
        self._hindrance = f"a put is answered {stream.code}: {stream.text}"
        if stream.text != NO_SPACE:
            self._probes.append(Write(began, float("inf"), [(key, value)], 0, who="back"))
        return False

    # -- the checks ----------------------------------------------------------------------------

    def _check(self, operations: list[Operation]) -> None:
        first, last = self._window
        self._window = (0.0, 0.0)
        if last:
            ends = [first, last]
            ends += [
                operation.return_s
                for operation in operations
                if isinstance(operation, Write)
                and operation.revision
                and first < operation.return_s < last
            ]
            ends.sort()
            gap = max(later - sooner for sooner, later in pairwise(ends))
            self.gaps_s.append(gap)
            if gap > GAP_MAX_S:
                self.tally.problems.append(f"no write for {gap:.1f} s though a quorum had room")
        self._writes = [write for write in self._writes if write.revision > self._own_compacted]
        super()._check(operations)
        self.shortages = sum(_shortages(member) for member in self._alive())

    def _read_log(self, client: WireClient, first: int, last: int) -> list[LogEntry]:
        recorder, self._recorder = self._recorder, None
        return super()._read_log(client, first, last) if recorder is None else recorder.stop(last)


def disk_status(member: ClusterMember) -> int:
    """Return the status of the check of the disk; 0: no answer."""
    connection = HTTPConnection("127.0.0.1", member.client_port, timeout=2.0)
    try:
        connection.request("GET", "/readyz/disk_space")
        return connection.getresponse().status
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()


def _shortages(member: ClusterMember) -> int:
    connection = HTTPConnection("127.0.0.1", member.client_port, timeout=5.0)
    try:
        connection.request("GET", "/metrics")
        for line in connection.getresponse().read().decode().splitlines():
            if line.startswith("etcdtw_disk_shortages_total "):
                return int(float(line.rsplit(" ", 1)[1]))
    except (OSError, HTTPException):
        pass
    finally:
        connection.close()
    return 0


def run(rounds: int, seed: int, *, is_quiet: bool) -> tuple[Tally, list[str]]:
    """Run the loop; returns what it has seen, and its figures.  Raises `NoMountsError`."""
    with Disks() as disks:
        loop = FullDiskLoop(disks, seed)
        tally = loop.run(rounds, is_quiet=is_quiet)
        return tally, loop.lines()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.integration.full_disk_loop", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.nice(5)
    try:
        tally, lines = run(options.rounds, options.seed, is_quiet=False)
    except NoMountsError as error:
        print(f"{error}; run this as root")
        return 1
    for problem in tally.problems[:20]:
        print(problem)
    print("\n".join(lines))
    return 1 if tally.problems or tally.rounds < options.rounds else 0


if __name__ == "__main__":
    sys.exit(main())
