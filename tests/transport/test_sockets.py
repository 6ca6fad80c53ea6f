"""Options of accepted sockets."""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet.interfaces import ISystemHandle, ITCPTransport, ITransport
from zope.interface import directlyProvides

from etcdtw.transport.sockets import KEEP_ALIVE_S, tune_socket


class Transport:
    """As Twisted's: it says TCP whatever the socket is."""

    def __init__(self, handle: socket.socket) -> None:
        self.handle = handle
        directlyProvides(self, ITCPTransport, ISystemHandle)

    def getHandle(self) -> socket.socket:
        return self.handle

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)


def tune(handle: socket.socket) -> None:
    tune_socket(cast(ITransport, cast(Any, Transport(handle))))


def test_unix_sockets_are_left_as_they_are() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        tune(ours)
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_tcp_sockets_send_at_once_and_notice_the_dead() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as ours,
    ):
        tune(ours)
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEP_ALIVE_S
