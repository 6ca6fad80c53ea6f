"""systemd's protocols, with sockets of our own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from twisted.internet.protocol import Factory

from etcdtw.server.process.readiness import (
    SocketNameError,
    adopted_endpoint,
    inherited_sockets,
    notify,
)


def test_ready_is_sent_to_the_socket_that_waits(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        assert notify({"NOTIFY_SOCKET": path})
        assert manager.recv(100) == b"READY=1"


def test_ready_is_sent_to_an_abstract_socket() -> None:
    name = f"etcdtw-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        assert notify({"NOTIFY_SOCKET": "@" + name})
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:1"}])
def test_nobody_waits(environment: dict[str, str]) -> None:
    assert not notify(environment)


def test_socket_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        notify({"NOTIFY_SOCKET": str(tmp_path / "gone")})


def passed(names: str, count: int, pid: int | None = None) -> dict[str, str]:
    return {
        "LISTEN_PID": str(os.getpid() if pid is None else pid),
        "LISTEN_FDS": str(count),
        "LISTEN_FDNAMES": names,
    }


def test_named_sockets_are_taken_over() -> None:
    assert inherited_sockets(passed("client:metrics", 2)) == {"client": 3, "metrics": 4}


def test_without_activation_there_are_none() -> None:
    assert inherited_sockets({}) == {}
    assert inherited_sockets(passed("client", 1, pid=1)) == {}


def test_socket_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(SocketNameError, match=r"'web'.*client, metrics"):
        inherited_sockets(passed("web", 1))


def test_sockets_without_names_are_refused() -> None:
    environment = passed("", 2)
    del environment["LISTEN_FDNAMES"]
    with pytest.raises(SocketNameError, match="FileDescriptorName="):
        inherited_sockets(environment)


def test_two_sockets_of_one_name_are_refused() -> None:
    with pytest.raises(SocketNameError, match="a second socket called 'client'"):
        inherited_sockets(passed("client:client", 2))


class AdoptingReactor:
    """Notes what it is asked to listen on."""

    def __init__(self) -> None:
        self.adopted: list[tuple[int, int, Factory]] = []

    def adoptStreamPort(self, descriptor: int, family: int, factory: Factory) -> None:
        self.adopted.append((descriptor, family, factory))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_inherited_socket_is_listened_on_with_its_own_family(family: socket.AddressFamily) -> None:
    reactor, factory = AdoptingReactor(), Factory()
    descriptor = socket.socket(family, socket.SOCK_STREAM).detach()
    adopted_endpoint(reactor, descriptor).listen(factory)  # type: ignore[arg-type]
    assert reactor.adopted == [(descriptor, family, factory)]
