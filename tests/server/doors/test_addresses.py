"""Addresses that are taken before anybody stands behind them."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.testing import MemoryReactorClock

from etcdtw.server.doors.addresses import PEER, Doors
from etcdtw.server.doors.taken import Taken
from etcdtw.transport.listener import Bound, bind, merge_listen_urls, parse_listen_url

STRANGER = IPv4Address("TCP", "127.0.0.1", 1)


class Behind(ServerFactory):
    protocol = Protocol
    is_started = False

    def startFactory(self) -> None:
        self.is_started = True

    def stopFactory(self) -> None:
        self.is_started = False


def opened() -> tuple[Doors, Bound]:
    bound = bind(parse_listen_url("http://127.0.0.1:0"))
    nothing = cast(Any, None)
    taken = Taken(bound={PEER: [bound]}, client_tls=None, peer_tls=nothing, lookup=nothing)
    doors = Doors(MemoryReactorClock(), lambda: taken)
    assert doors.startService().result is taken
    return doors, bound


def test_whoever_comes_too_early_is_sent_away() -> None:
    doors, _ = opened()
    (door,) = doors.of(PEER)
    assert door.buildProtocol(STRANGER) is None
    behind = Behind()
    door.open(behind)
    assert behind.is_started
    assert door.buildProtocol(STRANGER) is not None


def test_closed_doors_stay_closed() -> None:
    doors, _ = opened()
    behind = Behind()
    doors.of(PEER)[0].open(behind)
    doors.close(PEER)
    assert not behind.is_started
    assert doors.of(PEER)[0].buildProtocol(STRANGER) is None
    assert doors.stopService().called
    assert not doors.of("nothing")


def test_one_address_may_be_spoken_to_with_tls_and_without() -> None:
    texts = ("http://127.0.0.1:1", "https://127.0.0.1:2", "https://127.0.0.1:1", "http://[::1]:1")
    mixed, over_tls, plain = merge_listen_urls([parse_listen_url(text) for text in texts])
    assert (mixed.text, mixed.is_mixed, mixed.is_tls) == (
        "http://127.0.0.1:1, https://127.0.0.1:1",
        True,
        True,
    )
    assert not over_tls.is_mixed
    assert not plain.is_mixed
    (twice,) = merge_listen_urls([over_tls, over_tls])
    assert twice == over_tls
    (named,) = merge_listen_urls([parse_listen_url("unix:///a"), parse_listen_url("unixs:///a")])
    assert named.is_mixed
