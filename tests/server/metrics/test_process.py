"""Process metrics of a member and its children, from a made-up /proc and from the real one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from etcdtw.server.metrics.process import ProcessMetrics

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


def made(proc: Path, pid: int, children: str, files: int, *, cpu: int = 0, waited: int = 0) -> None:
    process = proc / str(pid)
    (process / "task" / str(pid)).mkdir(parents=True)
    (process / "task" / str(pid) / "children").write_text(children)
    (process / "fd").mkdir()
    for number in range(files):
        (process / "fd" / str(number)).touch()
    fields = ["0"] * 40
    fields[0] = "S"
    fields[11], fields[12], fields[13], fields[14] = str(cpu), str(cpu), str(waited), "0"
    fields[19], fields[20], fields[21] = str(5 * TICKS), "1000", "3"
    (process / "stat").write_text(f"{pid} (a ) b) {' '.join(fields)}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    made(tmp_path, 7, "8 9 ", 3, cpu=TICKS, waited=2 * TICKS)
    made(tmp_path, 8, "10", 2, cpu=TICKS, waited=50 * TICKS)
    made(tmp_path, 10, "", 1)
    (tmp_path / "stat").write_text("cpu 1 2\nbtime 1000\n")
    (tmp_path / "7" / "limits").write_text(
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max open files            1024                 4096                 files     \n"
        "Max address space         unlimited            unlimited            bytes     \n"
    )
    (tmp_path / "7" / "net").mkdir()
    (tmp_path / "7" / "net" / "netstat").write_text(
        "TcpExt: A B\nTcpExt: 1 2\nIpExt: X InOctets OutOctets\nIpExt: 0 11 22\n"
    )
    return tmp_path


def values(metrics: ProcessMetrics) -> dict[str, float]:
    return metrics.readings()


def test_all_processes_of_a_member_are_counted(proc: Path) -> None:
    """Child 9 has just ended; what its grandchild's reaped ones took is not this member's."""
    assert values(ProcessMetrics(proc, 7)) == {
        "process_cpu_seconds_total": 2 + 2 + 2,
        "process_max_fds": 1024,
        "process_network_receive_bytes_total": 11,
        "process_network_transmit_bytes_total": 22,
        "process_open_fds": 6,
        "process_resident_memory_bytes": 9 * PAGE,
        "process_start_time_seconds": 1005,
        "process_virtual_memory_bytes": 3000,
        "process_virtual_memory_max_bytes": 2.0**64,
    }


def test_what_is_not_there_is_not_shown(tmp_path: Path) -> None:
    assert values(ProcessMetrics(tmp_path, 7)) == {}


@pytest.mark.processes
def test_a_real_child_counts_while_it_lives() -> None:
    before = values(ProcessMetrics())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        during = values(ProcessMetrics())
        child.communicate(b"\n")
    assert during["process_open_fds"] > before["process_open_fds"]
    assert during["process_virtual_memory_bytes"] > before["process_virtual_memory_bytes"]
