"""Where a URL leads: the endpoint that whoever dials asks for a connection."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, cast

from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IStreamClientEndpoint

from etcdtw.cluster.urls import MemberUrl

TlsWrap = Callable[[IStreamClientEndpoint, str], IStreamClientEndpoint]
"""Returns an endpoint over TLS to a host of this name."""


def endpoint_of(
    reactor: Any, url: MemberUrl, timeout_s: float, own_address: str | None = None
) -> IStreamClientEndpoint:
    """Return the endpoint of a URL, without TLS whatever its scheme.

    ``own_address``: the IP address to dial from; None: the kernel's choice.
    """
    bound = None if own_address is None else (own_address, 0)
    if url.is_unix:
        return UNIXClientEndpoint(reactor, url.host, timeout=timeout_s)
    try:
        version = ip_address(url.host).version
    except ValueError:
        return HostnameEndpoint(reactor, url.host, url.port, timeout=timeout_s, bindAddress=bound)
    kind = TCP4ClientEndpoint if version == 4 else TCP6ClientEndpoint
    return cast(
        IStreamClientEndpoint,
        kind(reactor, url.host, url.port, timeout=timeout_s, bindAddress=bound),
    )
