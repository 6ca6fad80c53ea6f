"""systemd's two small protocols: telling it that we are ready, taking sockets from it.

Sources: sd_notify(3), sd_listen_fds(3).  The environment is an argument.  Socket activation
is beyond etcd, which ignores LISTEN_FDS.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import cache
from typing import Final

from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.interfaces import IReactorSocket, IStreamServerEndpoint

NOTIFY_VARIABLE: Final = "NOTIFY_SOCKET"
READY: Final = b"READY=1"
CLIENT_SOCKET: Final = "client"
METRICS_SOCKET: Final = "metrics"
KNOWN_SOCKETS: Final = (CLIENT_SOCKET, METRICS_SOCKET)
STARTED_ENVIRONMENT: Final = "/proc/self/environ"
_FIRST_DESCRIPTOR: Final = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START


class SocketNameError(Exception):
    """systemd hands over a socket whose name says nothing to us."""


def notify(environment: Mapping[str, str], message: bytes = READY) -> bool:
    """Send ``message`` to the process that waits for it; False when nobody does.

    Raises OSError when the socket that the environment names cannot be reached, or is full:
    nothing waits for who supervises us.
    """
    address = environment.get(NOTIFY_VARIABLE, "")
    if address[:1] not in ("/", "@"):
        return False
    if address[0] == "@":
        address = "\0" + address[1:]  # Linux's abstract namespace
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_UNIX, kind) as sender:
        sender.sendto(message, address)
    return True


@cache
def started_environment() -> Mapping[str, str]:
    """Return the environment that this process was started with.

    Read once: who forbids cores may not read it again.

    Importing Twisted's endpoints takes ``LISTEN_PID`` and ``LISTEN_FDS`` out of `os.environ`,
    for string descriptions that nobody here uses; the kernel still has them.
    """
    try:
        with open(STARTED_ENVIRONMENT, "rb") as file:
            rows = os.fsdecode(file.read()).split("\0")
    except OSError:
        return os.environ  # no such system file: nobody passes sockets either
    return dict(row.split("=", 1) for row in rows if "=" in row)


def inherited_sockets(environment: Mapping[str, str]) -> dict[str, int]:
    """Return the file descriptors that systemd passed on, by socket name.

    Empty without socket activation.  Raises `SocketNameError` for a name that is not one of
    `KNOWN_SOCKETS` or comes twice.  (Twisted's ListenFDs drops such sockets without a word.)
    """
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(environment.get("LISTEN_FDS", "0"))
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, int] = {}
    for i in range(count):
        name = names[i] if i < len(names) else ""
        if name not in KNOWN_SOCKETS or name in found:
            known = ", ".join(KNOWN_SOCKETS)
            raise SocketNameError(
                f"systemd passed {'a second' if name in found else 'a'} socket called {name!r}: "
                "give each socket unit one ListenStream= and as FileDescriptorName= "
                f"one of {known}"
            )
        found[name] = _FIRST_DESCRIPTOR + i
    return found


def adopted_endpoint(reactor: IReactorSocket, descriptor: int) -> IStreamServerEndpoint:
    """Return an endpoint that listens on an inherited socket.

    It takes the descriptor over and closes it once it listens on a copy.
    """
    with socket.socket(fileno=socket.dup(descriptor)) as probe:
        family = probe.family
    return AdoptedStreamServerEndpoint(reactor, descriptor, family)
