"""Socket options of accepted connections, as etcd sets them."""

from __future__ import annotations

import socket
from typing import Final

from twisted.internet.interfaces import ITCPTransport, ITransport

KEEP_ALIVE_S: Final = 30  # Go's net.KeepAliveConfig for etcd's listeners


def tune_socket(transport: ITransport | None) -> None:
    """Switch on TCP_NODELAY and TCP keep-alive; does nothing on other sockets than TCP."""
    if not ITCPTransport.providedBy(transport):
        return
    transport.setTcpNoDelay(True)
    transport.setTcpKeepAlive(True)
    handle = _socket_of(transport)
    if handle is not None:
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_S)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_S)


def _socket_of(transport: object) -> socket.socket | None:
    """Return the TCP socket under ``transport``, below TLS too; None in memory."""
    while transport is not None:
        handle = getattr(transport, "socket", None)
        if isinstance(handle, socket.socket):
            return handle
        transport = getattr(transport, "transport", None)
    return None
