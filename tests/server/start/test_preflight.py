"""What is checked and taken before a member starts."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock

from etcdtw.config.config import Config, configure
from etcdtw.server.process.readiness import SocketNameError
from etcdtw.server.start.bootstrap import BootstrapError
from etcdtw.server.start.preflight import check_writable, take
from etcdtw.transport.listener import ListenError
from etcdtw.transport.tls.policy import TlsError
from tests.support.ports import free_port

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def config(folder: Path, port: int, *more: str) -> Config:
    return configure(
        [
            f"--data-dir={folder / 'm'}",
            f"--listen-client-urls=http://127.0.0.1:{port}",
            f"--advertise-client-urls=http://127.0.0.1:{port}",
            f"--listen-peer-urls=http://127.0.0.1:{free_port()}",
            *more,
        ],
        {},
        lambda path: b"",
    )


def test_every_address_is_taken_and_let_go(tmp_path: Path) -> None:
    port = free_port()
    wanted = config(tmp_path, port)
    taken = take(wanted, {}, MemoryReactorClock(), NOW)
    with pytest.raises(ListenError, match="the address is in use"):
        take(wanted, {}, MemoryReactorClock(), NOW)
    taken.let_go()
    take(wanted, {}, MemoryReactorClock(), NOW).let_go()
    assert not (tmp_path / "m").exists()


def test_addresses_are_free_again_when_the_keys_are_bad(tmp_path: Path) -> None:
    port = free_port()
    bad = config(tmp_path, port, f"--peer-cert-file={tmp_path}/no", f"--peer-key-file={tmp_path}/n")
    with pytest.raises(TlsError):
        take(bad, {}, MemoryReactorClock(), NOW)
    take(config(tmp_path, port), {}, MemoryReactorClock(), NOW).let_go()


def test_directory_of_others_and_sockets_of_strange_names_are_refused(tmp_path: Path) -> None:
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}
    with pytest.raises(SocketNameError):
        take(config(tmp_path, free_port()), environment, MemoryReactorClock(), NOW)
    (tmp_path / "m").write_text("")
    with pytest.raises(BootstrapError, match="is not a directory"):
        take(config(tmp_path, free_port()), {}, MemoryReactorClock(), NOW)


def test_path_through_a_file_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BootstrapError, match=r"cannot be used: .*file/m: not a directory"):
        take(config(tmp_path / "file", free_port()), {}, MemoryReactorClock(), NOW)


def test_missing_directory_needs_one_above_it_that_may_be_written(tmp_path: Path) -> None:
    asked: list[Path] = []

    def refuse(path: Path, mode: int) -> bool:
        asked.append(path)
        return False

    with pytest.raises(PermissionError):
        check_writable(str(tmp_path / "a" / "b"), refuse)
    assert asked == [tmp_path]
    check_writable(str(tmp_path / "a" / "b"))
