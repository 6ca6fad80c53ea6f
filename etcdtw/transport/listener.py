"""Listening on etcd's URLs: ``http``, ``https``, ``unix``, ``unixs``.

Knows no protocol: a factory is given.  Errors name the URL, the fault and the cure.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, cast
from urllib.parse import urlsplit

from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IReactorTime,
)
from twisted.internet.tcp import Port as TcpPort
from twisted.internet.unix import Port as UnixPort

from etcdtw.transport.tls.policy import TlsFactory, TlsPolicy

SOCKET_MODE: Final = 0o660
ACCEPTS_MAX: Final = 2
"""Connections that one listener accepts before others have their turn."""
BACKLOG: Final = 1024
"""Connections that wait to be accepted: a thousand clients may start at once."""


class ListenError(Exception):
    """A URL that cannot be listened on."""


@dataclass(frozen=True, kw_only=True)
class ListenUrl:
    """A listen URL taken apart.  ``path`` is set for Unix sockets, ``port`` for TCP."""

    text: str
    is_tls: bool
    is_mixed: bool = False
    """The same address is listened on without TLS, too."""
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


def merge_listen_urls(urls: Sequence[ListenUrl]) -> list[ListenUrl]:
    """Return the addresses of ``urls``, each once: one may be spoken to with TLS and without."""
    found: dict[tuple[str, int, str | None], list[ListenUrl]] = {}
    for url in urls:
        found.setdefault((url.host, url.port, url.path), []).append(url)
    return [_merged(alike) for alike in found.values()]


def _merged(alike: Sequence[ListenUrl]) -> ListenUrl:
    first = alike[0]
    if all(url.is_tls == first.is_tls for url in alike):
        return first
    texts = dict.fromkeys(url.text for url in alike)
    return replace(first, text=", ".join(texts), is_tls=True, is_mixed=True)


class Bound:
    """A URL whose address is ours: the kernel queues what connects until somebody serves it.

    Binding needs no event loop, and the socket lives on in a fork.
    """

    def __init__(self, url: ListenUrl, listening: socket.socket) -> None:
        self.url = url
        self.socket = listening

    def serve(self, reactor: IReactorCore, factory: IProtocolFactory) -> IListeningPort:
        """Accept connections for ``factory`` from now on; the port owns the socket then."""
        if self.url.path is not None:
            named = _UnixPort(self, factory, reactor)
            named.startListening()
            return cast(IListeningPort, named)
        port = _TcpPort._fromListeningDescriptor(  # as `adoptStreamPort` does
            reactor, self.socket.fileno(), self.socket.family, factory
        )
        port.startListening()
        self.socket.close()  # the port has a copy
        return cast(IListeningPort, port)

    def close(self) -> None:
        """Let go of an address that nobody serves."""
        self.socket.close()
        if self.url.path is not None:
            with suppress(OSError):
                os.unlink(self.url.path)


class _FewAccepts:
    """Twisted accepts a hundred connections at once and more the next time: a crowd at the door
    would stop everything else for as long as they take."""

    _accepts = 1

    @property
    def numberAccepts(self) -> int:  # noqa: N802
        return self._accepts

    @numberAccepts.setter
    def numberAccepts(self, count: int) -> None:  # noqa: N802
        self._accepts = min(count, ACCEPTS_MAX)


class _TcpPort(_FewAccepts, TcpPort):
    pass


class _UnixPort(_FewAccepts, UnixPort):
    """Twisted's port on a socket that is bound already.

    (`adoptStreamPort` opens a Unix socket's file to everybody and shortens its queue to 50.)
    """

    def __init__(self, bound: Bound, factory: IProtocolFactory, reactor: IReactorCore) -> None:
        path = cast(Any, bound.url.path)
        super().__init__(path, factory, backlog=BACKLOG, mode=SOCKET_MODE, reactor=reactor)
        self._preexistingSocket = bound.socket


def bind(url: ListenUrl, *, shares_port: bool = False) -> Bound:
    """Take the address of ``url``.  Raises `ListenError`.

    ``shares_port``: other processes may listen on the same TCP port; the kernel spreads new
    connections over all of them.
    """
    if url.path is not None:
        remove_stale_socket(url)
    try:
        return Bound(url, _bind_unix(url.path) if url.path else _bind_tcp(url, shares_port))
    except OSError as error:
        raise ListenError(f"cannot listen on {url.text}: {_reason(error)}") from error


def _bind_tcp(url: ListenUrl, shares_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in url.host else socket.AF_INET
    flags = socket.AI_PASSIVE
    found = socket.getaddrinfo(url.host or None, url.port, family, socket.SOCK_STREAM, 0, flags)
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(found[0][4])
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _bind_unix(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o777 & ~SOCKET_MODE)
    try:
        listening.setblocking(False)
        listening.bind(path)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(umask)
    return listening


def bind_all(urls: Sequence[ListenUrl], *, shares_port: bool = False) -> list[Bound]:
    """Take every address or none.  Raises `ListenError`."""
    taken: list[Bound] = []
    try:
        for url in urls:
            taken.append(bind(url, shares_port=shares_port))
    except ListenError:
        for bound in taken:
            bound.close()
        raise
    return taken


def over_tls(
    url: ListenUrl, factory: IProtocolFactory, policy: TlsPolicy | None, clock: IReactorTime
) -> IProtocolFactory:
    """Return what serves ``url``: ``factory``, within TLS where the URL says so.

    ``policy`` is needed by ``https`` and ``unixs`` and ignored by the others, as in etcd.
    Raises `ListenError` without it.
    """
    if not url.is_tls:
        return factory
    if policy is None:
        raise ListenError(
            f"{url.text} needs a certificate and a key: give --cert-file and --key-file"
        )
    return TlsFactory(policy, factory, clock)


def listen(
    reactor: IReactorCore, url: ListenUrl, factory: IProtocolFactory, policy: TlsPolicy | None
) -> IListeningPort:
    """Bind and serve ``url`` at once.  Raises `ListenError`; nothing listens then."""
    factory = over_tls(url, factory, policy, cast(IReactorTime, reactor))
    return bind(url).serve(reactor, factory)


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


def _reason(cause: OSError) -> str:
    if isinstance(cause, socket.gaierror):
        return f"its host is no address of this machine ({cause.strerror})"
    number = cause.errno
    if number == errno.EADDRINUSE:
        return "the address is in use; stop the other process or choose another port"
    if number == errno.EACCES:
        return "permission denied; ports below 1024 and foreign directories need rights"
    if number == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    return cause.strerror or str(cause)
