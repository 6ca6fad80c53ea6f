"""Who is remembered for what, how long, and what follows."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address

from etcdtw.http2 import frames
from etcdtw.http2.limits import Limits
from etcdtw.transport.client.offenders import (
    ADDRESSES_MAX,
    DELAY_MAX_S,
    MEMORY_S,
    OFFENCES_MIN,
    SPACING_S,
    Offenders,
    network_of,
)
from tests.transport.client.port_rig import Peer, PortRig

A, B = "192.0.2.1", "192.0.2.2"


def test_a_few_offences_within_the_memory_make_an_offender() -> None:
    offenders = Offenders()
    for count in range(OFFENCES_MIN):
        assert not offenders.is_offender(A, float(count))
        offenders.note(A, float(count))
    assert offenders.is_offender(A, OFFENCES_MIN)
    assert not offenders.is_offender(B, OFFENCES_MIN)
    last_s = OFFENCES_MIN - 1.0
    assert offenders.is_offender(A, last_s + MEMORY_S - 0.01)
    assert not offenders.is_offender(A, last_s + MEMORY_S)
    offenders.note(A, last_s + MEMORY_S)
    assert not offenders.is_offender(A, last_s + MEMORY_S)


def test_offenders_are_let_in_at_a_pace_and_never_later_than_the_bound() -> None:
    offenders = Offenders()
    for _ in range(OFFENCES_MIN):
        offenders.note(A, 0.0)
    delays = [offenders.admit(A, 10.0) for _ in range(100)]
    assert delays[:3] == pytest.approx([0.0, SPACING_S, 2 * SPACING_S])
    assert delays[-1] == DELAY_MAX_S
    assert offenders.admit(A, 20.0) == 0.0


def test_addresses_remembered_are_bounded() -> None:
    offenders = Offenders()
    for _ in range(OFFENCES_MIN):
        offenders.note(A, 0.0)
    for i in range(ADDRESSES_MAX - 1):
        offenders.note(f"10.0.{i // 256}.{i % 256}", 1.0)
    assert offenders.is_offender(A, 1.0)
    offenders.note(B, 1.0)
    assert not offenders.is_offender(A, 1.0)
    assert offenders.count == ADDRESSES_MAX


def test_ipv6_addresses_of_one_network_are_one_and_unix_sockets_none() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1%eth0")
    assert network_of("2001:db8::1") != network_of("2001:db8:0:1::1")
    offenders = Offenders()
    offenders.note("", 0.0)
    assert offenders.count == 0
    assert not offenders.is_offender("", 0.0)


EMPTY = frames.HEADER.pack(0x42, 0, 1)  # a frame of an unknown type that carries nothing


def flood(peer: Peer) -> int:
    """Send empty frames until the port has enough; return how many it took, in hundreds."""
    peer.begin()
    for count in range(Limits().idle_frames_burst // 100 + 10):
        if peer.transport.disconnecting:
            return count
        peer.protocol.dataReceived(EMPTY * 100)
        peer.rig.clock.advance(0)
    raise AssertionError("never cut off")


def test_a_flood_that_comes_again_is_cut_off_early_and_comes_at_a_pace() -> None:
    rig = PortRig()
    first = [flood(rig.connect()) for _ in range(OFFENCES_MIN)]
    assert min(first) * 100 >= Limits().idle_frames_burst
    rig.clock.advance(1.0)
    assert flood(rig.connect()) <= 3
    late = rig.connect()
    assert late.transport.producerState == "paused"
    rig.clock.advance(SPACING_S)
    assert late.transport.producerState == "producing"
    assert flood(late) <= 3


def test_a_well_behaved_client_behind_the_same_address_is_unharmed() -> None:
    rig = PortRig()
    open_before = rig.connect()
    open_before.begin()
    for _ in range(OFFENCES_MIN):
        flood(rig.connect())
    rig.clock.advance(1.0)
    newcomer = rig.connect()
    newcomer.begin()
    for peer in (open_before, newcomer):
        for _ in range(500):
            peer.call("Unary", b"x" * 2000)
            peer.exchange()
        assert len(peer.results) == 500
        assert not peer.is_dropped
    elsewhere = rig.port.buildProtocol(IPv4Address("TCP", B, 1))
    assert elsewhere is not None


def test_a_connection_that_is_lost_while_it_waits_leaves_nothing() -> None:
    rig = PortRig()
    for _ in range(OFFENCES_MIN):
        peer = rig.connect()
        flood(peer)
        peer.lose()
    rig.connect().lose()
    rig.connect().lose()
    rig.clock.advance(0)
    assert rig.clock.getDelayedCalls() == []
