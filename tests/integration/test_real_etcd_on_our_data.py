"""Real etcd, started on a data directory of ours by a rollback, refuses it and changes nothing.

Without the guards of `storage.presence` every version deletes our log and serves an empty store.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.etcd_client import EtcdClient
from tests.support.judges import distributed_program, etcd34_program
from tests.support.ports import free_port
from tests.support.processes import RunningMember
from tools import judges

pytestmark = pytest.mark.integration

REFUSAL_TIMEOUT_S = 30.0
VERSIONS = (judges.DEBIAN, "v3.5.1", *reversed(judges.VERSIONS))


def program_of(version: str) -> Path:
    found: Path | None
    if version == judges.DEBIAN:
        found = etcd34_program()
    elif version == "v3.5.1":
        found = distributed_program("etcd")
    else:
        found = judges.program(version, "etcd")
    if found is None:
        pytest.skip(f"NO REAL ETCD {version}: `make judges` builds it")
    return found


def content(*folders: Path) -> dict[str, str]:
    """Return everything there is in ``folders``: digests, targets of links, modes of folders."""
    found: dict[str, str] = {}
    for file in [file for folder in folders for file in sorted(folder.rglob("*"))]:
        if file.is_symlink():
            found[str(file)] = os.readlink(file)
        elif file.is_dir():
            found[str(file)] = f"{file.stat().st_mode:o}"
        else:
            found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def start_real(program: Path, *flags: str) -> tuple[int, str]:
    """Start real etcd as a member alone; return its status and what it said."""
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    command = [
        str(program), *flags, "--name", "default", "--initial-cluster", f"default={peer}",
        "--listen-client-urls", client, "--advertise-client-urls", client,
        "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
    ]  # fmt: skip
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=REFUSAL_TIMEOUT_S, check=False
    )
    return ended.returncode, ended.stderr


def used(member: RunningMember) -> None:
    """Let the member keep a key, and end it."""
    with member, EtcdClient(member.endpoint) as client:
        client.put(b"key", b"value")
        member.kill()


def assert_kept(member: RunningMember) -> None:
    with member, EtcdClient(member.endpoint) as client:
        assert client.range(b"key").kvs[0].value == b"value"


@pytest.mark.parametrize("version", VERSIONS)
def test_real_etcd_refuses_our_data_directory(version: str, tmp_path: Path) -> None:
    program = program_of(version)
    data = tmp_path / "data"
    used(RunningMember("etcdtw", data_dir=data))
    before = content(data)
    for _ in range(2):
        status, told = start_real(program, "--data-dir", str(data))
        assert status != 0
        assert "snapshot directory" in told
        assert "member/snap" in told
    assert content(data) == before
    assert_kept(RunningMember("etcdtw", data_dir=data))


@pytest.mark.parametrize("version", VERSIONS)
def test_real_etcd_refuses_our_log_elsewhere(version: str, tmp_path: Path) -> None:
    """Whether it is given our data directory, too, or one of its own."""
    program = program_of(version)
    data, wal = tmp_path / "data", tmp_path / "wal"
    flags = ["--wal-dir", str(wal)]
    used(RunningMember("etcdtw", data_dir=data, flags=flags))
    before = content(data, wal)
    for folder in (data, tmp_path / "fresh", tmp_path / "fresh", data):
        status, told = start_real(program, "--data-dir", str(folder), *flags)
        assert status != 0
        assert "member/snap" in told or "0000000000000000-0000000000000000.wal" in told
    assert content(data, wal) == before
    assert_kept(RunningMember("etcdtw", data_dir=data, flags=flags))
