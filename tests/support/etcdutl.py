"""Runs real etcdutl 3.5.1 on files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.support.judges import distributed_program, judge_program

TIMEOUT_S: Final = 60.0


def etcdutl(*arguments: str, program: Path | None = None) -> str:
    """Run one command that must succeed; returns its stdout."""
    done = subprocess.run(
        [str(program or judge_program("etcdutl")), *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def snapshot_status(file: Path) -> tuple[int, int, int, int]:
    """Return hash, revision, total keys and total size, after etcd's own full check.

    Of 3.5, whose keys are the rows of all buckets; from 3.6 on they are the living keys alone.
    """
    told = etcdutl(
        "snapshot", "status", str(file), "-w", "json", program=distributed_program("etcdutl")
    )
    found: dict[str, Any] = json.loads(told)
    return found["hash"], found["revision"], found["totalKey"], found["totalSize"]


def snapshot_restore(file: Path, data_dir: Path, peer_url: str, *flags: str) -> None:
    """Make the data directory of a member ``m1`` from a snapshot file."""
    etcdutl(
        "snapshot", "restore", str(file), "--data-dir", str(data_dir), "--name", "m1",
        "--initial-cluster", f"m1={peer_url}", "--initial-advertise-peer-urls", peer_url, *flags,
    )  # fmt: skip
