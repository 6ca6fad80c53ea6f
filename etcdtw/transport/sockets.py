"""Socket options of accepted connections, as etcd sets them."""

from __future__ import annotations

import socket
from typing import Final

from twisted.internet.interfaces import IAddress, ISystemHandle, ITCPTransport, ITransport

KEEP_ALIVE_S: Final = 30  # Go's net.KeepAliveConfig for etcd's listeners
TCP_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


def address_of(remote: IAddress | None) -> str:
    """Return the address without its port, IPv4 inside IPv6 as IPv4; empty for no TCP."""
    host = getattr(remote, "host", "")
    return host.removeprefix("::ffff:") if isinstance(host, str) else ""


def end_of(address: IAddress | None) -> str:
    """Return one end of a connection as ``host:port``; empty for no TCP."""
    host, port = address_of(address), getattr(address, "port", 0)
    if not host:
        return ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tune_socket(transport: ITransport | None) -> None:
    """Switch on TCP_NODELAY and TCP keep-alive; does nothing on other sockets than TCP.

    Twisted's Unix sockets say that they are TCP transports, so the kernel's word counts.
    """
    if not ITCPTransport.providedBy(transport):
        return
    handle = _socket_below(transport)
    if handle is not None and handle.family not in TCP_FAMILIES:
        return
    transport.setTcpNoDelay(True)
    transport.setTcpKeepAlive(True)
    if handle is not None:
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_S)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_S)


def plain_socket(transport: object) -> socket.socket | None:
    """Return the socket that ``transport`` writes to as it is; None over TLS or in memory."""
    if not ISystemHandle.providedBy(transport):
        return None
    handle = transport.getHandle()
    return handle if isinstance(handle, socket.socket) else None


def _socket_below(transport: object) -> socket.socket | None:
    """Return the socket under ``transport``, below TLS too; None in memory."""
    while transport is not None:
        handle = plain_socket(transport)
        if handle is not None:
            return handle
        transport = getattr(transport, "transport", None)
    return None
