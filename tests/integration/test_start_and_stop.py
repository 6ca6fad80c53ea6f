"""A member's beginning and end: systemd's sockets, SIGTERM in every state, health that reads."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from etcdtw.server.services.storage import FLUSH_S
from etcdtw.storage.disk.failure import EXIT_FAIL_STOP
from etcdtw.wire import etcdserverpb as pb
from tests.support.etcd_client import EtcdClient
from tests.support.ports import free_port
from tests.support.processes import RunningMember, etcdtw_command

READY: Final = "ready to serve client requests"
WITHIN_S: Final = 20.0
STOP_WITHIN_S: Final = 12.0
"""Seven seconds of draining, and what the data takes."""

# As systemd does it: the sockets are descriptors from 3 on, the pid is that of the program.
ACTIVATE: Final = """
import os, sys
count = int(sys.argv[1])
for i in range(count):
    os.dup2(int(sys.argv[2 + i]), 3 + i)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(count)
os.execv(sys.argv[2 + count], sys.argv[2 + count:])
"""

pytestmark = pytest.mark.integration


def flags(data_dir: Path, port: int) -> list[str]:
    url = f"http://127.0.0.1:{port}"
    peer_url = f"http://127.0.0.1:{free_port()}"
    return [
        "--name=m1",
        f"--data-dir={data_dir}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=m1={peer_url}",
    ]


def await_ready(log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while READY not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def listening_socket() -> tuple[socket.socket, int]:
    listener = socket.socket()
    port = free_port()
    listener.bind(("127.0.0.1", port))
    listener.listen(50)
    # Far from 3 and 4, which the launcher fills.
    moved = socket.socket(fileno=fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD_CLOEXEC, 50))
    listener.close()
    return moved, port


def activated(
    names: str, sockets: list[socket.socket], tmp_path: Path
) -> tuple[subprocess.Popen[bytes], Path]:
    log = tmp_path / "log"
    fds = [listener.fileno() for listener in sockets]
    command = [sys.executable, "-c", ACTIVATE, str(len(fds)), *map(str, fds)]
    command += [*etcdtw_command(), *flags(tmp_path / "data", free_port())]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            cwd=tmp_path,
            env={**os.environ, "LISTEN_FDNAMES": names},
        )
    return process, log


def test_sockets_of_systemd_are_served(tmp_path: Path) -> None:
    (client, client_port), (metrics, metrics_port) = listening_socket(), listening_socket()
    with client, metrics:
        process, log = activated("client:metrics", [client, metrics], tmp_path)
        try:
            await_ready(log, process)
            with EtcdClient(f"127.0.0.1:{client_port}") as caller:
                caller.call("put", pb.PutRequest(key=b"k", value=b"v"))
            assert get(client_port, "/version")[0] == 200
            assert get(metrics_port, "/metrics")[0] == 200
            assert get(metrics_port, "/version")[0] == 404
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_WITHIN_S)
        finally:
            process.kill()
            process.wait()


def test_socket_of_an_unknown_name_stops_the_start(tmp_path: Path) -> None:
    listener, _ = listening_socket()
    with listener:
        process, log = activated("web", [listener], tmp_path)
        try:
            assert process.wait(WITHIN_S) == 1
        finally:
            process.kill()
            process.wait()
    assert "FileDescriptorName=" in log.read_text()


@pytest.fixture
def member() -> Iterator[RunningMember]:
    with RunningMember("etcdtw") as running:
        yield running


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8])
def test_sigterm_ends_a_member_that_is_starting(tmp_path: Path, delay_s: float) -> None:
    command = [*etcdtw_command(), *flags(tmp_path / "data", free_port())]
    with (tmp_path / "log").open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, cwd=tmp_path)
    time.sleep(delay_s)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_WITHIN_S)
    finally:
        process.kill()
        process.wait()
    # What it leaves can be started again.
    with RunningMember("etcdtw", data_dir=tmp_path / "data") as again:
        assert again.is_running


def test_sigterm_ends_a_member_with_open_watches_and_waiting_clients(
    member: RunningMember,
) -> None:
    with EtcdClient(member.endpoint) as client:
        watch = client.watch()
        watch.create(b"k")
        assert watch.take().created
        with socket.create_connection(("127.0.0.1", member.client_port)):
            started = time.monotonic()
            member.stop(STOP_WITHIN_S)
            assert time.monotonic() - started < STOP_WITHIN_S
        watch.close()


def test_sigterm_ends_a_member_whose_writer_hangs(member: RunningMember) -> None:
    with EtcdClient(member.endpoint) as client:
        _, writer = member.pids
        os.kill(writer, signal.SIGSTOP)
        try:
            client.call("put", pb.PutRequest(key=b"k", value=b"v"))
            client.close()
            assert member.stop(STOP_WITHIN_S + FLUSH_S) == EXIT_FAIL_STOP
        finally:
            os.kill(writer, signal.SIGKILL)
    assert "the state's writer does not answer" in member.stderr()
    member.start()
    with EtcdClient(member.endpoint) as client:
        assert client.call("range", pb.RangeRequest(key=b"k")).count == 1


def test_health_checks_read(member: RunningMember) -> None:
    with EtcdClient(member.endpoint) as client:
        client.call("put", pb.PutRequest(key=b"k", value=b"v"))
    for path in ("/health", "/health?serializable=true"):
        status, body = get(member.client_port, path)
        assert (status, json.loads(body)) == (200, {"health": "true", "reason": ""})
    for path in ("/livez", "/readyz", "/livez/serializable_read", "/readyz/linearizable_read"):
        assert get(member.client_port, path) == (200, b"ok\n")


def test_port_is_shared_only_by_members_that_both_say_so(tmp_path: Path) -> None:
    port = free_port()
    shared = [*flags(tmp_path / "one", port), "--socket-reuse-port"]
    first = launched(tmp_path / "one.log", shared)
    others = []
    try:
        await_ready(tmp_path / "one.log", first)
        shared = [*flags(tmp_path / "two", port), "--socket-reuse-port"]
        others.append(launched(tmp_path / "two.log", shared))
        await_ready(tmp_path / "two.log", others[0])
        others.append(launched(tmp_path / "three.log", flags(tmp_path / "three", port)))
        assert others[1].wait(WITHIN_S) == 1
        assert "the address is in use" in (tmp_path / "three.log").read_text()
        assert get(port, "/livez") == (200, b"ok\n")
    finally:
        for process in (first, *others):
            process.kill()
            process.wait()


def launched(log: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as stderr:
        return subprocess.Popen([*etcdtw_command(), *arguments], stderr=stderr, cwd=log.parent)
