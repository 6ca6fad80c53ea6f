"""Does heavy work hurt other clients?  ``python -m benchmarks.disturbance``

Ten clients put at half of the rate that they reach at most; the p99 of their puts is taken for a
while before, during and after each disturbance.  Latencies count from when a put was due, so
that a stall shows in every put that it held up.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks import surroundings, workloads
from benchmarks.load import LoadResult, LoadRun, percentile
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.pieces import WARNING_NS
from tests.support import wire_frames as wire
from tests.support.piece_times import longest_piece
from tests.support.processes import PROGRAMS, RunningMember, memory_kib
from tests.support.wire_client import WireClient

CLIENTS: Final = 10
MAXIMUM_S: Final = 5.0  # how long the rate at most is measured
FLAGS: Final = ("--quota-backend-bytes", "8589934592")
LARGE_PREFIX: Final = b"large/"
LARGE_OCTETS: Final = 100 * 1024 * 1024
LARGE_VALUE_OCTETS: Final = 100 * 1024
CALL_TIMEOUT_S: Final = 300.0
REFUSED: Final = "too many requests"
PIECE_MS_MAX: Final = WARNING_NS / 1e6
START_S: Final = 0.3  # about what a process of its own takes to start
DOOMED_PREFIX: Final = b"doomed/"
LEASES: Final = 100_000
LEASES_AT_ONCE: Final = 500
LEASE_TTL_S: Final = 30
NEEDS_HISTORY: Final = ("compaction", "defragment", "hash kv", "snapshot")


@dataclass(slots=True)
class Phase:
    """The puts of one stretch of time."""

    p99_ms: float
    most_ms: float
    count: int


def compaction(endpoint: str, seconds: float) -> None:
    """Compact everything but the newest revision, and wait for the deleting."""
    client = WireClient(endpoint, CALL_TIMEOUT_S)
    put = client.call("/etcdserverpb.KV/Put", pb.PutRequest(key=b"mark").SerializeToString())
    revision = pb.PutResponse.FromString(put.messages[0]).header.revision
    request = pb.CompactionRequest(revision=revision, physical=True).SerializeToString()
    done = client.call("/etcdserverpb.KV/Compact", request)
    assert done.code == 0, done.text
    client.close()


def defragment(endpoint: str, seconds: float) -> None:
    """Defragment the member."""
    client = WireClient(endpoint, CALL_TIMEOUT_S)
    done = client.call("/etcdserverpb.Maintenance/Defragment", b"")
    assert done.code == 0, done.text
    client.close()


def hash_kv(endpoint: str, seconds: float) -> None:
    """Hash the whole history."""
    client = WireClient(endpoint, CALL_TIMEOUT_S)
    done = client.call("/etcdserverpb.Maintenance/HashKV", b"")
    assert done.code == 0, done.text
    client.close()


def slow_watcher(endpoint: str, seconds: float) -> None:
    """Watch everything over 100 streams from the beginning, and never read."""
    host, _, port = endpoint.rpartition(":")
    create = pb.WatchCreateRequest(key=b"\0", range_end=b"\0", prev_kv=True)
    message = wire.grpc_message(pb.WatchRequest(create_request=create).SerializeToString())
    block = wire.header_block(wire.grpc_fields("/etcdserverpb.Watch/Watch", endpoint))
    frames = b"".join(
        wire.frame(wire.HEADERS, wire.END_HEADERS, stream_id, block)
        + wire.data_frames(stream_id, message, end=False)
        for stream_id in range(1, 200, 2)
    )
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(wire.PREFACE + wire.settings({}) + frames)
        time.sleep(seconds)


def large_range(endpoint: str, seconds: float) -> None:
    """Read 100 MB in one answer, again and again."""
    request = pb.RangeRequest(key=LARGE_PREFIX, range_end=LARGE_PREFIX[:-1] + b"0")
    message = request.SerializeToString()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        client = WireClient(endpoint, CALL_TIMEOUT_S)
        done = client.call("/etcdserverpb.KV/Range", message)
        assert done.code == 0, done.text
        client.close()


def large_delete(endpoint: str, seconds: float) -> None:
    """Delete as many keys as others have revisions, in one request."""
    client = WireClient(endpoint, CALL_TIMEOUT_S)
    request = pb.DeleteRangeRequest(key=DOOMED_PREFIX, range_end=DOOMED_PREFIX[:-1] + b"0")
    done = client.call("/etcdserverpb.KV/DeleteRange", request.SerializeToString())
    assert done.code == 0, done.text
    assert pb.DeleteRangeResponse.FromString(done.messages[0]).deleted, "nothing to delete"
    client.close()


def snapshot(endpoint: str, seconds: float) -> None:
    """Take a snapshot, and throw it away as it comes."""
    client = WireClient(endpoint, CALL_TIMEOUT_S)
    stream = client.begin([("/etcdserverpb.Maintenance/Snapshot", b"")])[0]
    while not stream.is_ended:
        client.receive(time.monotonic() + CALL_TIMEOUT_S)
        stream.take_messages()
    assert stream.code == 0, stream.text
    client.close()


def lease_expiry(endpoint: str, seconds: float) -> None:
    """Let 100,000 leases with a key each run out at about one time."""
    client = WireClient(endpoint, CALL_TIMEOUT_S)
    for start in range(0, LEASES, LEASES_AT_ONCE):
        grant = pb.LeaseGrantRequest(TTL=LEASE_TTL_S).SerializeToString()
        granted = client.begin([("/etcdserverpb.Lease/LeaseGrant", grant)] * LEASES_AT_ONCE)
        client.finish(granted)
        ids = [pb.LeaseGrantResponse.FromString(one.messages[0]).ID for one in granted]
        puts = [
            pb.PutRequest(key=b"leased/%d" % (start + i), lease=lease_id).SerializeToString()
            for i, lease_id in enumerate(ids)
        ]
        client.finish(client.begin([("/etcdserverpb.KV/Put", put) for put in puts]))
    count = pb.RangeRequest(key=b"leased/", range_end=b"leased0", count_only=True)
    deadline = time.monotonic() + CALL_TIMEOUT_S
    while time.monotonic() < deadline:
        done = client.call("/etcdserverpb.KV/Range", count.SerializeToString())
        if not pb.RangeResponse.FromString(done.messages[0]).count:
            break
        time.sleep(0.2)
    client.close()


DISTURBANCES: Final[dict[str, Callable[[str, float], None]]] = {
    "compaction": compaction,
    "defragment": defragment,
    "hash kv": hash_kv,
    "slow watcher": slow_watcher,
    "large range": large_range,
    "large delete": large_delete,
    "snapshot": snapshot,
    "lease expiry": lease_expiry,
}


def prepare(member: RunningMember, revisions: int) -> None:
    """Store ``revisions`` revisions and the 100 MB of `large_range`."""
    stored = LoadRun(workloads.preload()).exhaust(member.endpoint, connections=10, streams=4)
    assert not stored.errors, stored.error_texts
    left = revisions
    while left > 0:
        work = workloads.put()
        work.messages = work.messages[: min(left, len(work.messages))]
        stored = LoadRun(work).exhaust(member.endpoint, connections=10, streams=20)
        assert not stored.errors, stored.error_texts
        left -= len(work.messages)
    client = WireClient(member.endpoint)
    for i in range(LARGE_OCTETS // LARGE_VALUE_OCTETS):
        put = pb.PutRequest(key=LARGE_PREFIX + b"%06d" % i, value=bytes(LARGE_VALUE_OCTETS))
        done = client.call("/etcdserverpb.KV/Put", put.SerializeToString())
        assert done.code == 0, done.text
    client.close()


def prepare_doomed(member: RunningMember, keys: int) -> None:
    """Store the keys of `large_delete`."""
    work = workloads.load_in_txns([DOOMED_PREFIX + b"%09d" % i for i in range(keys)])
    stored = LoadRun(work).exhaust(member.endpoint, connections=10, streams=4)
    assert not stored.errors, stored.error_texts


def phases(result: LoadResult, began: float, bounds: list[float]) -> list[Phase]:
    """Cut the puts of ``result`` into stretches by when they were due."""
    found = []
    pairs = list(zip(result.finished_s, result.latencies_s, strict=True))
    for start, stop in itertools.pairwise(bounds):
        ordered = sorted(latency for end, latency in pairs if start <= end - latency - began < stop)
        most = ordered[-1] if ordered else 0.0
        found.append(Phase(percentile(ordered, 99) * 1000, most * 1000, len(ordered)))
    return found


class Experiment:
    """One disturbance of one member."""

    def __init__(self, member: RunningMember, name: str, seconds: float) -> None:
        self._member = member
        self._disturb = DISTURBANCES[name]
        self._seconds = seconds
        self._ended_s = 0.0
        self._memory_kib = 0
        self._is_failed = False
        self.refused = 0

    def run(self, rate: float) -> tuple[list[Phase], float, float]:
        """Return the phases before, during and after; the length of the second; MiB gained."""
        quiet_kib = memory_kib(self._member.pids)
        began = time.perf_counter()
        thread = threading.Thread(target=self._disturbing, args=(began,))
        sampler = threading.Thread(target=self._sample, args=(thread,))
        thread.start()
        sampler.start()
        result = LoadRun(workloads.put(), keep_times=True).open_loop(
            self._member.endpoint, connections=CLIENTS, rate=rate, seconds=3 * self._seconds
        )
        thread.join()
        sampler.join()
        assert not self._is_failed, "the disturbance failed"
        # What a full member refuses is a figure of the table; anything else is a fault.
        assert all(REFUSED in text for text in result.error_texts), result.error_texts
        self.refused = result.errors
        first = self._seconds
        last = min(max(self._ended_s, first + 1.0), 3 * self._seconds)
        bounds = [0.0, first, last, 3 * self._seconds + 1]
        gained_mib = (self._memory_kib - quiet_kib) / 1024
        return phases(result, began, bounds), last - first, gained_mib

    def _disturbing(self, began: float) -> None:
        # In a process of its own: reading 100 MB here would hold up the clients that are timed.
        arguments = (self._member.endpoint, self._seconds)
        process = multiprocessing.get_context("spawn").Process(target=self._disturb, args=arguments)
        time.sleep(max(0.0, self._seconds - START_S))
        process.start()
        process.join()
        self._is_failed = process.exitcode != 0
        self._ended_s = time.perf_counter() - began

    def _sample(self, thread: threading.Thread) -> None:
        while thread.is_alive():
            self._memory_kib = max(self._memory_kib, memory_kib(self._member.pids))
            time.sleep(0.1)


def measure(
    program: str, name: str, seconds: float, revisions: int, times: int
) -> tuple[str, float]:
    """Run one experiment ``times`` times on fresh members.

    Returns its line of the table, and the longest piece of all, in ms (0: real etcd tells none).
    """
    longest_ms = 0.0
    raised: list[float] = []
    lines: list[str] = []
    pieces: list[str] = []
    for _ in range(times):
        with RunningMember(program, flags=FLAGS) as member:
            prepare(member, revisions if name in NEEDS_HISTORY else 10_000)
            if name == "large delete":
                prepare_doomed(member, revisions)
            most = LoadRun(workloads.put()).closed_loop(
                member.endpoint, connections=CLIENTS, streams=1, seconds=MAXIMUM_S
            )
            experiment = Experiment(member, name, seconds)
            (before, during, after), long_s, gained = experiment.run(most.rate / 2)
            try:
                piece_ms, kind = longest_piece(member.client_url)
            except OSError:
                piece_ms, kind = 0.0, "?"
            longest_ms = max(longest_ms, piece_ms)
            raised.append(during.p99_ms / before.p99_ms if before.p99_ms else 0.0)
            lines.append(
                f"{most.rate / 2:7.0f}{before.p99_ms:9.2f}{during.p99_ms:9.2f}"
                f"{after.p99_ms:9.2f}{during.most_ms:10.1f}{long_s:8.1f}{gained:9.1f}"
            )
            refused = f", {experiment.refused} puts refused" if experiment.refused else ""
            pieces.append(f"{piece_ms:8.1f} {kind}{refused}")
    middle = sorted(range(times), key=lambda i: raised[i])[times // 2]
    line = f"{program:8}{name:14}{lines[middle]}{median(raised):8.1f}{pieces[middle]}"
    return line, longest_ms


def main() -> int:
    """Measure what the command line asks for, print the report and keep it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.disturbance", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="before, during and after")
    parser.add_argument("--revisions", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    parser.add_argument("--only", default="", help="parts of names, separated by commas")
    options = parser.parse_args()
    parts = [part for part in options.only.split(",") if part]
    text = [
        *surroundings.describe(),
        "",
        f"{CLIENTS} clients put at half the rate they reach at most; {options.seconds:g} s before, "
        f"during and after; {options.revisions:,} revisions; median of {options.times}.",
        f"{'program':8}{'disturbance':14}{'puts/s':>7}{'before':>9}{'during':>9}{'after':>9}"
        f"{'most':>10}{'lasts s':>8}{'+MiB':>9}{'x p99':>8}"
        f"{'piece':>8}   (p99, most and the longest piece of CPU in ms)",
    ]
    print("\n".join(text), flush=True)
    longest_ms = 0.0
    for name in DISTURBANCES:
        if parts and not any(part in name for part in parts):
            continue
        for program in options.programs.split(","):
            row, piece_ms = measure(
                program, name, options.seconds, options.revisions, options.times
            )
            longest_ms = max(longest_ms, piece_ms)
            text.append(row)
            print(row, flush=True)
    print(f"kept as {surroundings.keep('disturbance', text)}")
    print(f"longest piece of CPU: {longest_ms:.1f} ms, at most {PIECE_MS_MAX:g}")
    return 1 if longest_ms > PIECE_MS_MAX else 0


if __name__ == "__main__":
    sys.exit(main())
