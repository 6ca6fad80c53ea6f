"""Loading many keys, the memory they take, and the time of a restart with them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from benchmarks import workloads
from benchmarks.load import LoadRun
from etcdtw.wire import etcdserverpb as pb
from tests.support.processes import RunningMember, memory_kib
from tests.support.wire_client import ConnectionFailedError, WireClient

PUTS_A_TXN: Final = 40
CONNECTIONS: Final = 10
STREAMS: Final = 4
REST_S: Final = 3.0  # before memory is read
RESTART_TIMEOUT_S: Final = 300.0


@dataclass(slots=True)
class Footprint:
    """What one program needed."""

    load_rate: float  # keys a second
    anonymous_mib: float
    resident_mib: float
    restart_s: float  # from the start of the process to the first linearizable answer
    restarted_mib: float


def measure(program: str, keys: int) -> Footprint:
    """Load ``keys`` keys of 256 octets into a fresh member and restart it."""
    names = [b"load/%09d" % i for i in range(keys)]
    member = RunningMember(program, flags=("--quota-backend-bytes", "8589934592"))
    try:
        member.start()
        work = workloads.load_in_txns(names, PUTS_A_TXN)
        loaded = LoadRun(work).exhaust(member.endpoint, connections=CONNECTIONS, streams=STREAMS)
        assert not loaded.errors, loaded.error_texts
        _check_count(member, keys)
        time.sleep(REST_S)
        anonymous = memory_kib(member.pids) / 1024
        resident = memory_kib(member.pids, "VmRSS") / 1024
        member.stop()
        started = time.perf_counter()
        member.launch()
        _wait_for_answer(member)
        restart_s = time.perf_counter() - started
        _check_count(member, keys)
        time.sleep(REST_S)
        restarted = memory_kib(member.pids) / 1024
        return Footprint(keys / loaded.seconds, anonymous, resident, restart_s, restarted)
    finally:
        member.close()


def _ask(member: RunningMember, request: pb.RangeRequest) -> pb.RangeResponse:
    client = WireClient(member.endpoint)
    try:
        stream = client.call("/etcdserverpb.KV/Range", request.SerializeToString())
        if stream.code != 0:
            raise ConnectionFailedError(f"{stream.code} {stream.text}")
        return pb.RangeResponse.FromString(stream.messages[0])
    finally:
        client.close()


def _check_count(member: RunningMember, keys: int) -> None:
    request = pb.RangeRequest(key=b"load/", range_end=b"load0", count_only=True)
    assert _ask(member, request).count == keys


def _wait_for_answer(member: RunningMember) -> None:
    deadline = time.perf_counter() + RESTART_TIMEOUT_S
    while time.perf_counter() < deadline:
        try:
            _ask(member, pb.RangeRequest(key=b"load/000000001"))
        except (OSError, ConnectionFailedError):
            time.sleep(0.005)
            continue
        return
    raise TimeoutError(f"{member.program} does not answer after its restart")


def compare(keys: int, sides: list[str]) -> list[str]:
    """Measure each side once and return the lines of the report."""
    found = {side: measure(side.split()[0], keys) for side in sides}
    rows = [f"{keys:,} keys of 256 octets".ljust(34) + "".join(f"{side:>14}" for side in found)]
    fields = (
        ("load in txns of 40 puts, keys/s", "load_rate", 0),
        ("RssAnon of all processes, MiB", "anonymous_mib", 1),
        ("VmRSS of all processes, MiB", "resident_mib", 1),
        ("restart until an answer, s", "restart_s", 2),
        ("RssAnon after the restart, MiB", "restarted_mib", 1),
    )
    reference = found[sides[0]]
    for title, name, digits in fields:
        values = "".join(f"{getattr(one, name):14.{digits}f}" for one in found.values())
        ratios = " : ".join(
            f"{getattr(one, name) / getattr(reference, name):.2f}" for one in found.values()
        )
        rows.append(f"{title:34}{values}   {ratios}")
    return rows
