"""What a result must say beside its numbers: the machine, the programs, the commit, the day."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Final

import etcdtw
from tests.support.judges import judge_program

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "benchmarks" / "results"


def _output(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown"


def commit() -> str:
    """Return the short commit, marked when the program differs from it."""
    changed = _output("git", "status", "--porcelain", "--", "etcdtw")
    return _output("git", "rev-parse", "--short", "HEAD") + (" with changes" if changed else "")


def build() -> str:
    """Return whether the members started here run compiled cores or interpreted ones."""
    code = "import etcdtw.http2.connection as module; print(module.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True
    )
    return "compiled (mypyc)" if found.stdout.strip().endswith(".so") else "interpreted"


def describe() -> list[str]:
    """Return the lines that stand above every result."""
    memory_kib = int(_field("/proc/meminfo", "MemTotal").split()[0])
    etcd = _output(str(judge_program("etcd")), "--version").splitlines()
    return [
        f"date     {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        f"machine  {_field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores, "
        f"{memory_kib / 2**20:.0f} GiB, {platform.system()} {platform.release()}",
        f"python   {platform.python_version()}",
        f"etcdtw   {etcdtw.__version__} at {commit()}, cores {build()}",
        f"etcd     {etcd[0].partition(': ')[2] if etcd else 'unknown'}",
    ]


def keep(name: str, lines: list[str]) -> Path:
    """Write a result as a dated file below ``benchmarks/results/``; returns its path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d-%H%M}-{name}.txt"
    path.write_text("\n".join(lines) + "\n")
    return path
