"""Clients that do not read their answers: bounds for each and for all together."""

from __future__ import annotations

from etcdtw.http2.limits import Limits
from etcdtw.transport.client_port import SWEEP_S, UNREAD_SWEEPS, PortBounds, UnreadTotal
from tests.transport.port_rig import Peer, PortRig


def test_a_client_that_never_reads_is_dropped_at_a_bound() -> None:
    rig = PortRig(bounds=PortBounds(unread_octets_max=10_000))
    peer = rig.connect(room=1_000)
    peer.begin()
    for _ in range(11):
        peer.call("Unary", b"x" * 1_000)
        peer.send()
        rig.clock.advance(0)
        if peer.is_dropped:
            break
    assert peer.is_dropped
    peer.lose()
    assert rig.port.connection_count == 0


def leave_unread(peer: Peer, size: int) -> int:
    """Make ``peer`` ask for ``size`` octets that it does not read; return what is held of them."""
    peer.begin()
    peer.call("Unary", b"x" * size)
    peer.send()
    peer.rig.clock.advance(0)
    channel = peer.protocol.channel
    assert channel is not None
    assert channel.unread_octets > size
    return channel.unread_octets


def test_unread_octets_of_all_clients_may_reach_the_bound() -> None:
    total = UnreadTotal(0)
    rig = PortRig(unread=total)
    peers = [rig.connect(room=10) for _ in range(3)]
    held = sum(leave_unread(peer, 1_000) for peer in peers)
    total.octets_max = held
    rig.clock.pump([SWEEP_S] * UNREAD_SWEEPS)
    assert [peer.is_dropped for peer in peers] == [False] * 3


def test_one_octet_more_drops_the_client_that_leaves_most_unread() -> None:
    total = UnreadTotal()
    rig = PortRig(unread=total)
    peers = [rig.connect(room=10) for _ in range(3)]
    held = sum(leave_unread(peer, size) for peer, size in zip(peers, (10, 1_000, 20), strict=True))
    total.octets_max = held - 1
    rig.clock.pump([SWEEP_S] * UNREAD_SWEEPS)
    assert [peer.is_dropped for peer in peers] == [False, True, False]
    assert rig.port.stats.unread == 1
    peers[1].lose()
    rig.clock.pump([SWEEP_S] * UNREAD_SWEEPS)
    assert [peer.is_dropped for peer in peers] == [False, True, False]


def test_answers_that_wait_for_a_closed_window_count_as_unread() -> None:
    total = UnreadTotal()
    rig = PortRig(unread=total)
    peer = rig.connect()
    peer.begin()
    peer.grpc.open("/test.Echo/Open", lambda message: None, lambda code, text: None)
    peer.send()
    rig.held[0].send(b"x" * 2_000_000)
    rig.clock.advance(0)
    channel = peer.protocol.channel
    assert channel is not None
    assert channel.unread_octets == 5 + 2_000_000 - Limits().stream_window
    total.octets_max = channel.unread_octets - 1
    rig.clock.pump([SWEEP_S] * UNREAD_SWEEPS)
    assert peer.is_dropped


def test_bound_holds_over_all_ports_of_a_member() -> None:
    total = UnreadTotal()
    first, second = PortRig(unread=total), PortRig(unread=total)
    one, other = first.connect(room=10), second.connect(room=10)
    held = leave_unread(one, 1_000) + leave_unread(other, 1_000)
    total.octets_max = held - 1
    first.clock.pump([SWEEP_S] * UNREAD_SWEEPS)
    assert not one.is_dropped
    second.clock.pump([SWEEP_S] * UNREAD_SWEEPS)
    assert other.is_dropped
    first.clock.pump([SWEEP_S] * UNREAD_SWEEPS)
    assert not one.is_dropped
    one.transport.read()
    one.lose()
    other.lose()
    assert total.note(first.port, 0) == 0
