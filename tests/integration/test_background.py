"""``twistd etcdtw`` without ``-n``: what is wrong is said where the start was asked for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launches import TWISTD, clean_environment, launched, member_flags
from tests.support.ports import free_port

pytestmark = pytest.mark.integration
READY = "ready to serve client requests"
ENDED = "Server Shut Down"  # said after the pid file is gone
WITHIN_S = 30.0
POLL_S = 0.02


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where daemons are started; those that still run at the end are killed."""
    yield tmp_path
    for path in tmp_path.rglob("*.pid"):
        os.kill(int(path.read_text()), signal.SIGKILL)


def start(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Start a daemon as an operator does; returns what the shell sees."""
    return subprocess.run(
        [str(TWISTD), *words],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def flags(folder: Path) -> list[str]:
    return member_flags("m1", folder / "m1.etcd", free_port(), free_port())


def await_text(path: Path, wanted: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not path.exists() or wanted not in path.read_text():
        assert time.monotonic() < deadline, path.read_text() if path.exists() else "no log"
        time.sleep(POLL_S)


def stop(folder: Path) -> None:
    pidfile = folder / "twistd.pid"
    os.kill(int(pidfile.read_text()), signal.SIGTERM)
    deadline = time.monotonic() + WITHIN_S
    while pidfile.exists():
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


def test_daemon_says_where_its_log_is_and_stops_in_order(folder: Path) -> None:
    started = start(folder, "etcdtw", *flags(folder))
    log = folder / "twistd.log"
    assert (started.returncode, started.stdout) == (0, "")
    assert started.stderr == f"etcdtw goes on in the background and logs to {log}\n"
    await_text(log, READY)
    stop(folder)
    await_text(log, ENDED)


@pytest.mark.parametrize("words", [["-l", "own.log"], ["-l", "own.log", "-d", "run"]])
def test_log_file_that_twistd_was_given_is_used(folder: Path, words: list[str]) -> None:
    (folder / "run").mkdir()
    relative = [one.replace(f"{folder}/", "") for one in flags(folder)]
    started = start(folder, *words, "etcdtw", *relative)
    assert started.stderr.endswith(f" logs to {folder / 'own.log'}\n")
    log = folder / "own.log"
    await_text(log, READY)
    log.rename(folder / "older.log")
    os.kill(int((folder / "twistd.pid").read_text()), signal.SIGUSR1)
    where = folder / "run" if "-d" in words else folder
    assert (where / "m1.etcd").is_dir()
    stop(folder)  # twistd keeps its pid file where it was started
    await_text(log, ENDED)


def test_address_in_use_is_said_to_the_shell(folder: Path) -> None:
    wanted = flags(folder)
    port = int(wanted[2].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        started = start(folder, "etcdtw", *wanted)
    assert started.returncode == 1
    assert f":{port}: the address is in use" in started.stderr
    assert not (folder / "m1.etcd").exists()
    assert not (folder / "twistd.pid").exists()


def test_keys_and_directories_are_looked_at_before_the_fork(folder: Path) -> None:
    missing = [one.replace("client-urls=http:", "client-urls=https:") for one in flags(folder)]
    started = start(folder, "etcdtw", *missing, "--cert-file=none.pem", "--key-file=none.pem")
    assert (started.returncode, "none.pem" in started.stderr) == (1, True)
    (folder / "m1.etcd").mkdir(mode=0o755)
    (folder / "m1.etcd").chmod(0o755)
    started = start(folder, "etcdtw", *flags(folder))
    assert (started.returncode, "has mode 0755" in started.stderr) == (1, True)


def test_data_that_cannot_be_opened_is_said_to_the_shell(folder: Path) -> None:
    with launched(flags(folder), folder) as first:
        first.await_text(READY)
        started = start(folder, "etcdtw", *flags(folder))
        assert started.returncode == 1
        assert "An error has occurred" in started.stderr
        await_text(folder / "twistd.log", "is in use by another process")
