"""Real etcd and etcdtw side by side: ``python -m benchmarks.side_by_side`` (= ``make bench``).

Each round starts three fresh members (real etcd, etcdtw, real etcd once more), stores the same
keys in each, and measures one workload after the other, on one member at a time: the others are
stopped (SIGSTOP) meanwhile.  The order of the members turns with every round.  A ratio is the
median of the ratios of single rounds; real etcd against itself shows how far to trust it.  With
``ETCDTW_BASE=path/of/twistd`` an earlier etcdtw, installed elsewhere, is measured beside them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import footprint, surroundings, workloads
from benchmarks.json_load import JsonFanOut, JsonLoad, json_puts, json_ranges
from benchmarks.load import WARM_UP_S, LoadResult, LoadRun
from benchmarks.streams import FanOutLoad, KeepAliveLoad
from benchmarks.workloads import Workload
from tests.support.certs import Authority
from tests.support.processes import (
    BASE,
    BASE_VARIABLE,
    MemberNotReadyError,
    RunningMember,
    TlsFiles,
    cpu_seconds,
)
from tests.support.wire_client import ConnectionFailedError

ETCD: Final = "etcd"
ETCDTW: Final = "etcdtw"
AGAIN: Final = "etcd again"
SIDES: Final = (ETCD, ETCDTW, AGAIN, BASE)
FLOOR_HELP: Final = "fail when a ratio to the base is below this (ranges of many keys: 0.05 less)"
MANY_KEYS: Final = ("of 1,000",)
"""In the names of workloads that check a seal for every key; a floor is lower for these."""
SEALS_MAX: Final = 0.05
BASE_ONLY_HELP: Final = "ours against the base alone: half the time"
# Room for the puts of a whole round; the logging of both is left as it is.
FLAGS: Final = ("--quota-backend-bytes", "8589934592")
SETTLE_S: Final = 0.5  # after a run: what was put off is done before the member is stopped
LONE_SLICES: Final = 6
"""So many parts of a round has the run of a lone client, and the sides take turns with each: what
waking the other process costs changes within seconds by more than the difference to be seen."""
LONE_SETTLE_S: Final = 0.1
LONE_WARM_UP_S: Final = 0.2
OCTETS_TOLERANCE: Final = 0.1
LOCAL_NAME: Final = "localhost"
STREAMING: Final[dict[str, Callable[[str], FanOutLoad | KeepAliveLoad | JsonFanOut | JsonLoad]]] = {
    "lease keep-alive 100x10": KeepAliveLoad,
    "watch fan-out 1 to 1,000 (events)": FanOutLoad,
    "JSON put 64x1": json_puts,
    "JSON range linearizable 64x1": json_ranges,
    "JSON watch 1 to 1,000 (events)": JsonFanOut,
}
"""What is not unary gRPC, by the endpoint that it goes to."""


@dataclass(slots=True)
class Line:
    """All measurements of one workload."""

    name: str
    rates: dict[str, list[float]] = field(default_factory=lambda: {side: [] for side in SIDES})
    p50_ms: dict[str, list[float]] = field(default_factory=lambda: {side: [] for side in SIDES})
    p99_ms: dict[str, list[float]] = field(default_factory=lambda: {side: [] for side in SIDES})
    octets: dict[str, list[float]] = field(default_factory=lambda: {side: [] for side in SIDES})
    server_cpu: dict[str, list[float]] = field(default_factory=lambda: {side: [] for side in SIDES})
    generator_cpu: dict[str, list[float]] = field(
        default_factory=lambda: {side: [] for side in SIDES}
    )
    complaints: list[str] = field(default_factory=list)
    is_new: bool = False
    """The base does not know it."""

    def add(self, side: str, result: LoadResult, server_cpu_s: float) -> None:
        self.rates[side].append(result.rate)
        self.p50_ms[side].append(result.percentile_ms(50))
        self.p99_ms[side].append(result.percentile_ms(99))
        self.octets[side].append(result.octets / max(result.count, 1))
        self.server_cpu[side].append(server_cpu_s / result.seconds)
        self.generator_cpu[side].append(result.generator_cpu_s / result.seconds)
        if result.errors:
            texts = "; ".join(result.error_texts)
            self.complaints.append(f"{self.name}, {side}: {result.errors} errors: {texts}")

    def ratios(self, side: str, to: str = ETCD) -> list[float]:
        """Return the ratio of ``side`` to real etcd (or another side) of each round, ascending."""
        pairs = zip(self.rates[side], self.rates[to], strict=False)
        return sorted(ours / theirs for ours, theirs in pairs if theirs)

    def check_octets(self) -> None:
        """Complain when the answers of the two programs differ in size: not the same work."""
        if not (self.octets[ETCD] and self.octets[ETCDTW] and self.octets[ETCD][0]):
            return
        ours, theirs = median(self.octets[ETCDTW]), median(self.octets[ETCD])
        if abs(ours / theirs - 1) > OCTETS_TOLERANCE:
            self.complaints.append(
                f"{self.name}: answers of {ours:.0f} octets against {theirs:.0f}"
            )


class Round:
    """Three members beside each other, one awake at a time."""

    def __init__(self, sides: list[str], tls: TlsFiles | None) -> None:
        self.members = {
            side: RunningMember(side.split()[0], flags=FLAGS, tls=tls) for side in sides
        }
        self._ca_file = str(tls.ca_file) if tls else None

    def run(self, chosen: list[str], lines: dict[str, Line], seconds: float) -> None:
        """Measure the ``chosen`` workloads on every member in turn."""
        with ExitStack() as stack:
            for member in self.members.values():
                stack.enter_context(member)
                if self._ca_file is None:
                    stored = LoadRun(workloads.preload()).exhaust(
                        member.endpoint, connections=10, streams=4
                    )
                    assert not stored.errors, stored.error_texts
                time.sleep(SETTLE_S)
                member.pause()
            for name in chosen:
                if name not in STREAMING and _unary(name).connections == 1:
                    for _ in range(LONE_SLICES):
                        self._take_turns(name, lines[name], seconds / LONE_SLICES, LONE_SETTLE_S)
                else:
                    self._take_turns(name, lines[name], seconds, SETTLE_S)

    def _take_turns(self, name: str, line: Line, seconds: float, settle_s: float) -> None:
        for side, member in self.members.items():
            if side == BASE and line.is_new:
                continue
            member.resume()
            before_s = cpu_seconds(member.pids)
            try:
                result = self._measure(name, member, seconds)
            except TimeoutError as error:
                if side != BASE:
                    raise
                line.is_new = True
                line.complaints.append(f"{name}: not compared, the base does not answer: {error}")
                member.pause()
                continue
            line.add(side, result, cpu_seconds(member.pids) - before_s)
            time.sleep(settle_s)
            member.pause()

    def _measure(self, name: str, member: RunningMember, seconds: float) -> LoadResult:
        if name in STREAMING:
            return STREAMING[name](member.endpoint).run(seconds)
        workload = _unary(name)
        return LoadRun(workload.build()).closed_loop(
            member.endpoint,
            connections=workload.connections,
            streams=workload.streams,
            seconds=seconds,
            warm_up_s=LONE_WARM_UP_S if workload.connections == 1 else WARM_UP_S,
            ca_file=self._ca_file,
        )


def _unary(name: str) -> Workload:
    return next(workload for workload in workloads.UNARY if workload.name == name)


def _tls_files(folder: Path) -> TlsFiles:
    authority = Authority(folder)
    issued = authority.issue("member", host=LOCAL_NAME)
    return TlsFiles(Path(issued.cert_file), Path(issued.key_file), Path(authority.ca_file))


def _run_round(one: Round, chosen: list[str], lines: dict[str, Line], seconds: float) -> None:
    """Run a round; what breaks it off is told below the table."""
    try:
        one.run(chosen, lines, seconds)
    except (MemberNotReadyError, ConnectionError, ConnectionFailedError) as error:
        lines[chosen[0]].complaints.append(f"a round broke off: {error}"[-2000:])


def measure(chosen: list[str], rounds: int, seconds: float, sides: list[str]) -> dict[str, Line]:
    """Run all rounds; prints one line for each, so that a long run shows where it is."""
    lines = {name: Line(name) for name in chosen}
    with_tls = [name for name in chosen if name not in STREAMING and _unary(name).uses_tls]
    plain = [name for name in chosen if name not in with_tls]
    with tempfile.TemporaryDirectory() as folder:
        tls = _tls_files(Path(folder)) if with_tls else None
        for i in range(rounds):
            turned = sides[i % len(sides) :] + sides[: i % len(sides)]
            if plain:
                _run_round(Round(turned, None), plain, lines, seconds)
            if with_tls:
                _run_round(Round(turned, tls), with_tls, lines, seconds)
            print(f"round {i + 1} of {rounds} done", file=sys.stderr, flush=True)
    for line in lines.values():
        line.check_octets()
    return lines


def _middle(values: list[float]) -> float:
    return median(values) if values else 0.0


def _ratio(ratios: list[float]) -> str:
    if not ratios:
        return f"{'-':>20}"
    return f"{median(ratios):6.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})".rjust(20)


def table(lines: dict[str, Line]) -> list[str]:
    """Return the table, one workload a line."""
    rows = [
        f"{'workload':34}{'etcd/s':>10}{'etcdtw/s':>10}{'ratio (least-most)':>20}"
        f"{'etcd : etcd':>20}{'etcdtw : base':>20}{'p50 ms':>15}{'p99 ms':>17}"
        f"{'cpu server':>13}{'cpu load':>12}"
    ]
    for line in lines.values():
        pairs = [
            f"{_middle(values[ETCD]):.2f}|{_middle(values[ETCDTW]):.2f}"
            for values in (line.p50_ms, line.p99_ms, line.server_cpu, line.generator_cpu)
        ]
        rows.append(
            f"{line.name:34}{_middle(line.rates[ETCD]):10.0f}{_middle(line.rates[ETCDTW]):10.0f}"
            f"{_ratio(line.ratios(ETCDTW))}{_ratio(line.ratios(AGAIN))}"
            f"{_ratio(line.ratios(ETCDTW, BASE))}"
            f"{pairs[0]:>15}{pairs[1]:>17}{pairs[2]:>13}{pairs[3]:>12}"
        )
    complaints = [text for line in lines.values() for text in line.complaints]
    return [*rows, "", *(complaints or ["every answer counted ended with grpc-status 0"])]


def slower_than(lines: dict[str, Line], floor: float) -> list[str]:
    """Return a text for each workload whose ratio to the base is below ``floor``."""
    found: list[str] = []
    for line in lines.values():
        ratios = line.ratios(ETCDTW, BASE)
        least = floor - SEALS_MAX * any(part in line.name for part in MANY_KEYS)
        if ratios and median(ratios) < least:
            found.append(f"{line.name}: {median(ratios):.2f} of the base, at least {least:.2f}")
    return found


def notes(rounds: int, seconds: float) -> list[str]:
    """Return what a reader has to know to judge the table."""
    return [
        f"{rounds} rounds of {seconds:g} s a side and workload; medians; random keys out of "
        f"{workloads.KEYS:,}, values of {workloads.VALUE_OCTETS} octets.",
        "etcd | etcdtw where two numbers share a column.  The load generator (one Python process, "
        "rendered frames)",
        "shares the cores with the server that it measures; cpu is in cores.  Ratios are medians "
        "of the rounds' ratios; a lone client's (1x1) of parts in which sides take turns.",
        "",
    ]


def sides_here(*, etcd_only: bool = False, base_only: bool = False) -> list[str]:
    """Return what is measured: an earlier etcdtw, too, where its twistd is named."""
    if etcd_only:
        return [ETCD, AGAIN]
    if base_only:
        assert os.environ.get(BASE_VARIABLE), f"{BASE_VARIABLE} names the base's twistd"
        return [ETCDTW, BASE]
    return [side for side in SIDES if side != BASE or os.environ.get(BASE_VARIABLE)]


def main() -> int:
    """Measure what the command line asks for, print the report and keep it."""
    names = [*(workload.name for workload in workloads.UNARY), *STREAMING]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--workloads", default="", help="parts of names, separated by commas")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 s, 100,000 keys")
    parser.add_argument("--footprint-keys", type=int, default=1_000_000, help="0: leave it out")
    parser.add_argument("--etcd-only", action="store_true", help="real etcd against itself")
    parser.add_argument("--base-only", action="store_true", help=BASE_ONLY_HELP)
    parser.add_argument("--floor", type=float, default=0.0, help=FLOOR_HELP)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.footprint_keys = 2, 2.0, 100_000
    parts = [part for part in options.workloads.split(",") if part]
    chosen = [name for name in names if not parts or any(part in name for part in parts)]
    sides = sides_here(etcd_only=options.etcd_only, base_only=options.base_only)
    text = [*surroundings.describe(), "", *notes(options.rounds, options.seconds)]
    lines = measure(chosen, options.rounds, options.seconds, sides)
    text += table(lines)
    if options.footprint_keys and not parts:
        text += ["", *footprint.compare(options.footprint_keys, sides)]
    print("\n".join(text))
    print(f"kept as {surroundings.keep('side_by_side', text)}")
    slower = slower_than(lines, options.floor)
    print("\n".join(slower))
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
