"""Listening on etcd's URLs: ``http``, ``https``, ``unix``, ``unixs``.

Knows no protocol: a factory is given.  Errors name the URL, the fault and the cure.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import urlsplit

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IReactorSocket,
    IReactorTime,
    IStreamServerEndpoint,
)

from etcdtw.transport.tls import TlsFactory, TlsPolicy

SOCKET_MODE: Final = 0o660
BACKLOG: Final = 1024
"""Connections that wait to be accepted: a thousand clients may start at once."""


class ListenError(Exception):
    """A URL that cannot be listened on."""


@dataclass(frozen=True, kw_only=True)
class ListenUrl:
    """A listen URL taken apart.  ``path`` is set for Unix sockets, ``port`` for TCP."""

    text: str
    is_tls: bool
    host: str = ""
    port: int = 0
    path: str | None = None


def parse_listen_url(text: str) -> ListenUrl:
    """Return the parts of ``text``.  Raises `ListenError`."""
    try:
        parts = urlsplit(text)
        port = parts.port if parts.scheme in ("http", "https") else None
    except ValueError as error:
        raise ListenError(f"{text!r} is no URL ({error}): write http://host:port") from error
    if parts.scheme in ("unix", "unixs"):
        # etcd takes all after the scheme as the name: unix://localhost:2379 is a file here.
        path = parts.netloc + parts.path
        if not path:
            raise ListenError(f"{text!r} names no socket file: write {parts.scheme}:///path")
        return ListenUrl(text=text, is_tls=parts.scheme == "unixs", path=path)
    if parts.scheme not in ("http", "https"):
        raise ListenError(f"{text!r}: the scheme must be http, https, unix or unixs")
    if port is None:
        raise ListenError(f"{text!r} names no port: write {parts.scheme}://host:port")
    if parts.path not in ("", "/"):
        raise ListenError(f"{text!r}: a listen URL has no path")
    return ListenUrl(
        text=text, is_tls=parts.scheme == "https", host=parts.hostname or "", port=port
    )


def build_endpoint(reactor: IReactorCore, url: ListenUrl) -> IStreamServerEndpoint:
    """Return the endpoint of ``url``, without TLS."""
    if url.path is not None:
        return UNIXServerEndpoint(reactor, url.path, backlog=BACKLOG, mode=SOCKET_MODE)
    if ":" in url.host:
        return TCP6ServerEndpoint(reactor, url.port, backlog=BACKLOG, interface=url.host)
    return TCP4ServerEndpoint(reactor, url.port, backlog=BACKLOG, interface=url.host)


def build_shared_endpoint(reactor: IReactorCore, url: ListenUrl) -> IStreamServerEndpoint:
    """Return an endpoint of a TCP ``url`` whose port other processes may listen on too.

    The kernel spreads new connections over all of them.  Twisted sets no SO_REUSEPORT, so the
    socket is made here.  Raises OSError when it cannot be bound.
    """
    family = socket.AF_INET6 if ":" in url.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as shared:
        shared.setblocking(False)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind((url.host, url.port))
        shared.listen(BACKLOG)
        # The endpoint takes its descriptor over; this one is closed on the way out.
        descriptor = socket.dup(shared.fileno())
    return AdoptedStreamServerEndpoint(cast(IReactorSocket, reactor), descriptor, family)


async def listen(
    reactor: IReactorCore,
    url: ListenUrl,
    factory: IProtocolFactory,
    policy: TlsPolicy | None,
    *,
    shares_port: bool = False,
) -> IListeningPort:
    """Listen on ``url``.  Raises `ListenError`; nothing listens then.

    ``policy`` is needed by ``https`` and ``unixs`` and ignored by the others, as in etcd.
    ``shares_port``: other processes may listen on the same TCP port.
    """
    if url.is_tls:
        if policy is None:
            raise ListenError(
                f"{url.text} needs a certificate and a key: give --cert-file and --key-file"
            )
        factory = TlsFactory(policy, factory, cast(IReactorTime, reactor))
    if url.path is not None:
        remove_stale_socket(url)
    build = build_shared_endpoint if shares_port and url.path is None else build_endpoint
    try:
        return await build(reactor, url).listen(factory)
    except CannotListenError as error:
        raise ListenError(f"cannot listen on {url.text}: {_reason(error.socketError)}") from error
    except OSError as error:
        raise ListenError(f"cannot listen on {url.text}: {_reason(error)}") from error


async def listen_all(
    reactor: IReactorCore,
    urls: list[ListenUrl],
    factory: IProtocolFactory,
    policy: TlsPolicy | None,
    *,
    shares_port: bool = False,
) -> list[IListeningPort]:
    """Listen on every URL or on none.  Raises `ListenError`."""
    ports: list[IListeningPort] = []
    try:
        for url in urls:
            ports.append(await listen(reactor, url, factory, policy, shares_port=shares_port))
    except ListenError:
        for port in ports:
            await maybeDeferred(port.stopListening)
        raise
    return ports


def remove_stale_socket(url: ListenUrl) -> None:
    """Remove the socket file that a dead process left behind.

    Raises `ListenError` when a live process listens there, or it is no socket at all.
    """
    assert url.path is not None
    try:
        mode = os.lstat(url.path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"cannot listen on {url.text}: {url.path} is there and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(url.path)
        except (ConnectionRefusedError, FileNotFoundError):
            os.unlink(url.path)
            return
        except OSError as error:
            if error.errno != errno.EAGAIN:  # a full backlog is a live process too
                raise ListenError(f"cannot listen on {url.text}: {error.strerror}") from error
    raise ListenError(f"cannot listen on {url.text}: another process listens there; stop it")


def _reason(cause: object) -> str:
    number = getattr(cause, "errno", None)
    if number == errno.EADDRINUSE:
        return "the address is in use; stop the other process or choose another port"
    if number == errno.EACCES:
        return "permission denied; ports below 1024 and foreign directories need rights"
    if number == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    return str(cause)
