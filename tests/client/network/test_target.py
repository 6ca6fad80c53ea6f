"""What a client may be told of its servers."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.testing import MemoryReactorClock

from etcdtw.client.network.target import Target, find_target
from tests.client.network.network_rig import FakeServer


class Wrapped:
    """Stands for an endpoint over TLS."""

    def __init__(self, endpoint: IStreamClientEndpoint, host: str) -> None:
        self.endpoint = endpoint
        self.host = host


def found(told: Any) -> Target:
    return find_target(MemoryReactorClock(), told, Wrapped, 5.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "kind", "authority"),
    [
        ("http://10.0.0.1:2379", TCP4ClientEndpoint, b"10.0.0.1:2379"),
        ("http://[::1]:2379", TCP6ClientEndpoint, b"[::1]:2379"),
        ("http://etcd1:2379", HostnameEndpoint, b"etcd1:2379"),
        ("etcd1:2379", HostnameEndpoint, b"etcd1:2379"),
        ("10.0.0.1:2379", TCP4ClientEndpoint, b"10.0.0.1:2379"),
        ("[::1]:2379", TCP6ClientEndpoint, b"[::1]:2379"),
        ("unix:///run/etcd.sock", UNIXClientEndpoint, b"localhost"),
        ("tcp:etcd1:2379", TCP4ClientEndpoint, b"localhost"),
        ("unix:/run/etcd.sock", UNIXClientEndpoint, b"localhost"),
    ],
)
def test_a_plain_server_is_told_in_many_ways(told: str, kind: type, authority: bytes) -> None:
    target = found(told)
    assert isinstance(target.endpoint, kind)
    assert (target.scheme, target.authority) == (b"http", authority)
    assert told in target.name


@pytest.mark.parametrize(
    ("told", "host"), [("https://etcd1:2379", "etcd1"), ("unixs:///run/etcd.sock", "localhost")]
)
def test_a_url_of_tls_must_prove_its_host(told: str, host: str) -> None:
    target = found(told)
    assert isinstance(target.endpoint, Wrapped)
    assert target.endpoint.host == host
    assert target.scheme == b"https"


def test_an_endpoint_is_taken_as_it_is() -> None:
    server = FakeServer("s")
    assert found(server).endpoint is server


@pytest.mark.parametrize("told", ["http://etcd1:2379/path", "ftp://etcd1", "nonsense:x:y", "etcd1"])
def test_what_is_no_server_is_refused(told: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        found(told)
