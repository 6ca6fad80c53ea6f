"""What the operating system counts of a member: all of its processes, under etcd's names.

A member is a process with children: the state's writer, and others while snapshots are made.  A
limit is the member's own; the network is that of the namespace, as Go's client shows it.
Source: prometheus' client_golang, process collector; proc(5).
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Final

from etcdtw.server.metrics.table import COUNTER, GAUGE, Series

PROCESSES_MAX: Final = 64
"""A member has a handful."""
UNLIMITED: Final = 2**64 - 1
PROC: Final = Path("/proc")
READ_SIZE: Final = 65_536
_FIELDS_AT: Final = 2  # of the state, behind the name in brackets; proc_pid_stat(5) counts from 3


PROCESS_SERIES: Final = (
    Series("process_cpu_seconds_total", COUNTER, "CPU time of all processes, in s."),
    Series("process_max_fds", GAUGE, "Files that the member's own process may open."),
    Series("process_network_receive_bytes_total", COUNTER, "Octets received by this host."),
    Series("process_network_transmit_bytes_total", COUNTER, "Octets sent by this host."),
    Series("process_open_fds", GAUGE, "Files that all processes have open."),
    Series("process_resident_memory_bytes", GAUGE, "Resident memory of all processes."),
    Series("process_start_time_seconds", GAUGE, "Unix time of the start."),
    Series("process_virtual_memory_bytes", GAUGE, "Virtual memory of all processes."),
    Series("process_virtual_memory_max_bytes", GAUGE, "Virtual memory there may be."),
)
"""In the order in which they are shown."""


class ProcessMetrics:
    """Reads /proc when it is scraped; shows what can be read.

    When the machine and this process began is read once.
    """

    def __init__(self, proc: Path = PROC, pid: int | None = None) -> None:
        self._proc = str(proc)
        self._pid = str(os.getpid() if pid is None else pid)
        self._started_s: float | None = None

    def readings(self) -> dict[str, float]:
        """Return the value of each of `PROCESS_SERIES` by its name, in their order."""
        own = f"{self._proc}/{self._pid}"
        ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
        cpu_ticks = virtual = resident = files = 0
        try:
            own_fields = _stat(own)
            cpu_ticks += sum(int(own_fields[i]) for i in (13, 14))  # of children that have ended
            if self._started_s is None:
                self._started_s = int(own_fields[19]) / ticks + self._boot_unix_s()
        except (OSError, IndexError, ValueError):
            return {}
        for process in self._processes(own):
            try:
                fields = own_fields if process == own else _stat(process)
                cpu_ticks += sum(int(fields[i]) for i in (11, 12))
                virtual += int(fields[20])
                resident += int(fields[21]) * page
                files += len(os.listdir(f"{process}/fd"))
            except (OSError, IndexError, ValueError):
                continue  # it has just ended
        files_max, memory_max = _limits(own)
        received, sent = _network(own)
        values = (
            *(cpu_ticks / ticks, files_max, received, sent, files),
            *(resident, self._started_s, virtual, memory_max),
        )
        return {one.name: value for one, value in zip(PROCESS_SERIES, values, strict=True)}

    def _processes(self, own: str) -> list[str]:
        """Return this process, its children and theirs."""
        found = [own]
        for process in found:
            if len(found) >= PROCESSES_MAX:
                break
            try:
                for task in os.listdir(f"{process}/task"):
                    children = _text(f"{process}/task/{task}/children")
                    found += [f"{self._proc}/{child}" for child in children.split()]
            except OSError:
                continue
        return found

    def _boot_unix_s(self) -> float:
        for line in _text(f"{self._proc}/stat").splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
        return 0.0


def _text(path: str) -> str:
    """Return what a file of /proc says, read in one go: no buffers, no decoding by lines."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(file, READ_SIZE):
            parts.append(part)
    finally:
        os.close(file)
    return b"".join(parts).decode("ascii", "replace")


def _stat(process: str) -> list[str]:
    """Return the fields from the state on: the name before it may hold anything."""
    text = _text(f"{process}/stat")
    return text[text.rindex(")") + _FIELDS_AT :].split()


def _limits(process: str) -> tuple[float, float]:
    """Return how many files, and octets of address space, the process may have."""
    found = {"Max open files": 0.0, "Max address space": 0.0}
    try:
        for line in _text(f"{process}/limits").splitlines():
            for name in found:
                if line.startswith(name):
                    soft = line[len(name) :].split()[0]
                    found[name] = float(UNLIMITED if soft == "unlimited" else int(soft))
    except (OSError, IndexError, ValueError):
        pass
    return found["Max open files"], found["Max address space"]


def _network(process: str) -> tuple[float, float]:
    """Return the octets of IP that came in and went out."""
    try:
        lines = _text(f"{process}/net/netstat").splitlines()
    except OSError:
        return 0.0, 0.0
    for names, values in pairwise(lines):
        if names.startswith("IpExt:") and values.startswith("IpExt:"):
            row = dict(zip(names.split(), values.split(), strict=False))
            return float(row.get("InOctets", 0)), float(row.get("OutOctets", 0))
    return 0.0, 0.0
