"""Names and addresses, asked of the machine (/etc/hosts, DNS) in threads of the reactor's pool.

A member has one `SystemLookup`: for the peers that it dials, for the addresses of members and
for certificates.  A resolver that does not answer holds some threads and no more: the same pool
carries the files of snapshots.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorThreads,
    IResolutionReceiver,
)
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.transport.tls.addresses import TooManyLookupsError, plain_address

LOOKUPS_MAX: Final = 6
"""Look-ups at once; each holds one of the ten threads of the reactor's pool."""
WAITERS_MAX: Final = 64
"""Who may wait for one look-up: redials do not stop while it hangs."""

_Ask = Callable[[str], list[Any]]


class SystemLookup:
    """Looks up each name once at a time, whoever asks for it meanwhile.

    Fails with `TooManyLookupsError` beyond the bounds.
    """

    def __init__(self, reactor: IReactorThreads) -> None:
        self._reactor = reactor
        self._waiting: dict[tuple[_Ask, str], list[Deferred[Any]]] = {}

    def names_of(self, address: str) -> Deferred[Sequence[str]]:
        """Return the names that an address has."""
        return self._run(_names_of, address)

    def addresses_of(self, name: str) -> Deferred[Sequence[str]]:
        """Return the addresses of a name, in their shortest form."""
        return self.sockets_of(name).addCallback(_plain)

    def sockets_of(self, name: str) -> Deferred[Sequence[tuple[Any, ...]]]:
        """Return the socket addresses of a name, without a port, as `socket` has them."""
        return self._run(_sockets_of, name)

    def _run(self, ask: _Ask, subject: str) -> Deferred[Any]:
        key = (ask, subject)
        waiters = self._waiting.get(key)
        if waiters is None:
            if len(self._waiting) >= LOOKUPS_MAX:
                return fail(TooManyLookupsError("too many look-ups at once"))
            waiters = self._waiting[key] = []
            # Who waits may give up; the thread goes on and is counted until it ends.
            work = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), ask, subject)
            work.addBoth(self._answered, key)
        elif len(waiters) >= WAITERS_MAX:
            return fail(TooManyLookupsError(f"too many wait for {subject}"))
        waiting: Deferred[Any] = Deferred(waiters.remove)
        waiters.append(waiting)
        return waiting

    def _answered(self, result: list[Any] | Failure, key: tuple[_Ask, str]) -> None:
        waiters = self._waiting.pop(key)
        while waiters:
            waiters.pop(0).callback(result)  # a Failure is passed on as one


@implementer(IHostnameResolver)
class DialResolver:
    """What a reactor asks for the addresses of a host that is dialled."""

    def __init__(self, lookup: SystemLookup) -> None:
        self._lookup = lookup

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Tell the TCP addresses of a name; none when it cannot be looked up."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)

        def found(sockets: Sequence[tuple[Any, ...]]) -> None:
            for host, _, *more in sockets:
                kind = IPv6Address if more else IPv4Address
                if addressTypes is None or kind in addressTypes:
                    address = kind("TCP", host, portNumber, *more)
                    resolutionReceiver.addressResolved(address)

        looked_up = self._lookup.sockets_of(hostName).addCallbacks(found, _no_addresses)
        looked_up.addBoth(lambda _: resolutionReceiver.resolutionComplete())
        return resolution


@implementer(IHostResolution)
class _Resolution:
    """Twisted's dials never cancel theirs."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        raise NotImplementedError("a look-up cannot be cancelled")


def _no_addresses(failure: Failure) -> None:
    """The dial says that the name has none."""
    failure.trap(OSError, ValueError)


def _plain(sockets: Sequence[tuple[Any, ...]]) -> list[str]:
    return [plain_address(str(found[0])) for found in sockets]


def _names_of(address: str) -> list[str]:
    name, aliases, _ = socket.gethostbyaddr(address)
    return [name, *aliases]


def _sockets_of(name: str) -> list[tuple[Any, ...]]:
    return [entry[4] for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
