"""What the operating system counts of a member: all of its processes, under etcd's names.

A member is a process with children: the state's writer, and others while snapshots are made.  A
limit is the member's own; the network is that of the namespace, as Go's client shows it.
Source: prometheus' client_golang, process collector; proc(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

from prometheus_client import Metric
from prometheus_client.registry import Collector

PROCESSES_MAX: Final = 64
"""A member has a handful."""
UNLIMITED: Final = 2**64 - 1
PROC: Final = Path("/proc")
_FIELDS_AT: Final = 2  # of the state, behind the name in brackets; proc_pid_stat(5) counts from 3


class ProcessMetrics(Collector):
    """Reads /proc when it is scraped; shows what can be read."""

    def __init__(self, proc: Path = PROC, pid: int | None = None) -> None:
        self._proc = proc
        self._pid = os.getpid() if pid is None else pid

    def collect(self) -> Iterator[Metric]:
        own = self._proc / str(self._pid)
        ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
        cpu_ticks = virtual = resident = files = 0
        for process in self._processes(own):
            try:
                fields = _stat(process)
                cpu_ticks += sum(int(fields[i]) for i in (11, 12))
                virtual += int(fields[20])
                resident += int(fields[21]) * page
                files += len(os.listdir(process / "fd"))
            except (OSError, IndexError, ValueError):
                continue  # it has just ended
        try:
            fields = _stat(own)
            cpu_ticks += sum(int(fields[i]) for i in (13, 14))  # of children that have ended
            started_s = int(fields[19]) / ticks + self._boot_unix_s()
        except (OSError, IndexError, ValueError):
            return
        limits = _limits(own)
        received, sent = _network(own)
        for name, kind, text, value in (
            ("cpu_seconds_total", "counter", "CPU time of all processes, in s.", cpu_ticks / ticks),
            ("max_fds", "gauge", "Files that the member's own process may open.", limits[0]),
            ("network_receive_bytes_total", "counter", "Octets received by this host.", received),
            ("network_transmit_bytes_total", "counter", "Octets sent by this host.", sent),
            ("open_fds", "gauge", "Files that all processes have open.", files),
            ("resident_memory_bytes", "gauge", "Resident memory of all processes.", resident),
            ("start_time_seconds", "gauge", "Unix time of the start.", started_s),
            ("virtual_memory_bytes", "gauge", "Virtual memory of all processes.", virtual),
            ("virtual_memory_max_bytes", "gauge", "Virtual memory there may be.", limits[1]),
        ):
            metric = Metric(f"process_{name}", text, kind)
            metric.add_sample(f"process_{name}", {}, value)
            yield metric

    def _processes(self, own: Path) -> list[Path]:
        """Return this process, its children and theirs."""
        found = [own]
        for process in found:
            if len(found) >= PROCESSES_MAX:
                break
            try:
                for task in os.listdir(process / "task"):
                    children = (process / "task" / task / "children").read_text()
                    found += [self._proc / child for child in children.split()]
            except OSError:
                continue
        return found

    def _boot_unix_s(self) -> float:
        for line in (self._proc / "stat").read_text().splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
        return 0.0


def _stat(process: Path) -> list[str]:
    """Return the fields from the state on: the name before it may hold anything."""
    text = (process / "stat").read_text(errors="replace")
    return text[text.rindex(")") + _FIELDS_AT :].split()


def _limits(process: Path) -> tuple[float, float]:
    """Return how many files, and octets of address space, the process may have."""
    found = {"Max open files": 0.0, "Max address space": 0.0}
    try:
        for line in (process / "limits").read_text().splitlines():
            for name in found:
                if line.startswith(name):
                    soft = line[len(name) :].split()[0]
                    found[name] = float(UNLIMITED if soft == "unlimited" else int(soft))
    except (OSError, IndexError, ValueError):
        pass
    return found["Max open files"], found["Max address space"]


def _network(process: Path) -> tuple[float, float]:
    """Return the octets of IP that came in and went out."""
    try:
        lines = (process / "net" / "netstat").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    for names, values in pairwise(lines):
        if names.startswith("IpExt:") and values.startswith("IpExt:"):
            row = dict(zip(names.split(), values.split(), strict=False))
            return float(row.get("InOctets", 0)), float(row.get("OutOctets", 0))
    return 0.0, 0.0
