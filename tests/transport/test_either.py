"""Connections that are plain or over TLS, as their first octet says."""

from __future__ import annotations

from typing import cast

import pytest
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from etcdtw.transport.either import FIRST_OCTET_S, EitherFactory


class Kept(Protocol):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.is_lost = False

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True


class Keeper(Factory):
    """Keeps its connections; none when it is full."""

    noisy = False

    def __init__(self) -> None:
        self.kept: list[Kept] = []
        self.is_full = False

    def buildProtocol(self, addr: IAddress | None) -> Kept | None:
        if self.is_full:
            return None
        self.kept.append(Kept())
        return self.kept[-1]


class Wire(StringTransport):
    """A transport as reactors have it: it knows its protocol."""

    def __init__(self, factory: EitherFactory) -> None:
        super().__init__()
        self.abort_count = 0
        self.protocol = cast(Protocol, factory.buildProtocol(None))
        self.protocol.makeConnection(self)

    def abortConnection(self) -> None:
        self.abort_count += 1

    def is_dropped(self) -> bool:
        return self.abort_count == 1


class Rig:
    def __init__(self, undecided_max: int = 100) -> None:
        self.clock = Clock()
        self.plain, self.over_tls = Keeper(), Keeper()
        self.factory = EitherFactory(
            self.plain, self.over_tls, self.clock, undecided_max=undecided_max
        )

    def connect(self) -> Wire:
        return Wire(self.factory)


@pytest.mark.parametrize(
    ("data", "is_tls"),
    [(b"\x16\x03\x01", True), (b"\x16", True), (b"PRI * HTTP/2.0", False), (b"G", False)],
)
def test_the_first_octet_decides(data: bytes, is_tls: bool) -> None:
    rig = Rig()
    wire = rig.connect()
    wire.protocol.dataReceived(data)
    chosen, other = (rig.over_tls, rig.plain) if is_tls else (rig.plain, rig.over_tls)
    (kept,) = chosen.kept
    assert other.kept == []
    wire.protocol.dataReceived(b"more")
    assert kept.heard == data + b"more"
    assert cast(object, kept.transport) is wire
    wire.protocol.connectionLost(Failure(Exception()))
    assert kept.is_lost
    assert rig.clock.getDelayedCalls() == []
    assert rig.factory.undecided_count == 0


def test_who_says_nothing_is_dropped() -> None:
    rig = Rig()
    wire = rig.connect()
    rig.clock.advance(FIRST_OCTET_S - 0.1)
    assert not wire.is_dropped()
    rig.clock.advance(0.1)
    assert wire.is_dropped()
    assert rig.factory.undecided_count == 0


def test_who_leaves_without_a_word_leaves_nothing() -> None:
    rig = Rig()
    rig.connect().protocol.connectionLost(Failure(Exception()))
    assert rig.clock.getDelayedCalls() == []
    assert rig.factory.undecided_count == 0


def test_of_too_many_silent_ones_the_oldest_gives_way() -> None:
    rig = Rig(undecided_max=2)
    wires = [rig.connect() for _ in range(2)]
    assert not any(wire.abort_count for wire in wires)
    wires.append(rig.connect())
    assert [wire.abort_count for wire in wires] == [1, 0, 0]
    assert rig.factory.undecided_count == 2


def test_a_port_that_is_full_turns_away() -> None:
    rig = Rig()
    rig.plain.is_full = True
    wire = rig.connect()
    wire.protocol.dataReceived(b"GET")
    assert wire.is_dropped()
