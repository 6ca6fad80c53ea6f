"""What a client is told of its servers: URLs, addresses, Twisted's endpoint descriptions."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint

from etcdtw.cluster.urls import parse_url
from etcdtw.transport.dialled import TlsWrap, endpoint_of

_ADDRESS: Final = re.compile(r"(?:\[[^\]]+\]|[^:/\[\]]+):[0-9]+\Z")


class Target(NamedTuple):
    """One server.  ``name`` is what errors call it."""

    name: str
    endpoint: IStreamClientEndpoint
    scheme: bytes
    authority: bytes


def find_target(
    reactor: Any, told: str | IStreamClientEndpoint, wrap_tls: TlsWrap, timeout_s: float
) -> Target:
    """Return what ``told`` means.

    A URL (``https://etcd1:2379``, ``unix:///run/etcd.sock``), an address (``etcd1:2379``, plain
    TCP), a Twisted description (``tcp:etcd1:2379``) or an endpoint.
    Raises `ValueError` for what is none.
    """
    if not isinstance(told, str):
        return Target(repr(told), told, b"http", b"localhost")
    if "://" not in told:
        if _ADDRESS.match(told) is None:
            is_tls = told.startswith(("tls:", "ssl:"))
            endpoint = clientFromString(reactor, told)
            return Target(told, endpoint, b"https" if is_tls else b"http", b"localhost")
        told = f"http://{told}"
    url = parse_url(told)
    endpoint = endpoint_of(reactor, url, timeout_s)
    host = f"[{url.host}]" if ":" in url.host else url.host
    authority = "localhost" if url.is_unix else f"{host}:{url.port}"
    if url.is_tls:
        endpoint = wrap_tls(endpoint, "localhost" if url.is_unix else url.host)
    return Target(told, endpoint, b"https" if url.is_tls else b"http", authority.encode())
