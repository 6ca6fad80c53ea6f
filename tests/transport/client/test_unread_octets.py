"""Clients that do not read their answers: bounds for each and for all together."""

from __future__ import annotations

from etcdtw.grpc.stats import ServerStats
from etcdtw.http2.limits import WINDOW_MAX, Limits
from etcdtw.transport.client.grpc_channel import OUTPUT_SIZE, PIECE_SIZE
from etcdtw.transport.client.port import PortBounds, UnreadTotal
from tests.transport.client.port_rig import Peer, PortRig


def test_a_client_that_never_reads_is_dropped_at_a_bound() -> None:
    rig = PortRig(bounds=PortBounds(unread_octets_max=10_000))
    peer = rig.connect(room=1_000)
    peer.begin()
    peer.call("Unary", b"x" * 1_000)
    for _ in range(200):
        peer.call("Unknown")
        peer.send()
        rig.clock.advance(0)
        if peer.is_dropped:
            break
    assert peer.is_dropped
    peer.lose()
    assert rig.port.connection_count == 0


def test_a_client_that_is_slow_to_read_gets_a_large_answer_whole() -> None:
    """gRPC's C core opens its windows as far as the message it expects is large."""
    rig = PortRig()
    peer = rig.connect(room=1_000, window=WINDOW_MAX)
    peer.begin()
    peer.call("Hold")
    peer.call("Unary", b"x" * 1_000)  # the transport is full when the answer comes
    peer.send()
    rig.clock.advance(0)
    rig.held[0].reply(b"y" * 40_000_000)
    most = received = 0
    while received < 40_000_000:
        rig.clock.advance(0)
        assert not peer.is_dropped
        octets = peer.transport.read()
        assert octets
        channel = peer.protocol.channel
        assert channel is not None
        most = max(most, channel._held_octets)
        received += len(octets)
    assert most <= OUTPUT_SIZE + PIECE_SIZE


def leave_unread(peer: Peer, size: int) -> int:
    """Make ``peer`` ask for ``size`` octets that it does not read; return what is held of them."""
    peer.begin()
    peer.call("Unary", b"x" * size)
    peer.send()
    peer.rig.clock.advance(0)
    channel = peer.protocol.channel
    assert channel is not None
    assert channel.server.unread_octets > size
    return channel.server.unread_octets


def test_unread_octets_of_all_clients_may_reach_the_bound() -> None:
    rig = PortRig()
    peers = [rig.connect(room=10) for _ in range(3)]
    for peer in peers:
        leave_unread(peer, 1_000)
    rig.stats.unread_max = rig.stats.unread_octets + 7
    peers[0].call("Unary", b"x" * 7)
    peers[0].send()
    assert [peer.is_dropped for peer in peers] == [False] * 3


def test_one_octet_more_drops_the_client_that_leaves_most_unread_before_it_is_kept() -> None:
    rig = PortRig()
    peers = [rig.connect(room=10) for _ in range(3)]
    for peer, size in zip(peers, (10, 1_000, 20), strict=True):
        leave_unread(peer, size)
    rig.stats.unread_max = rig.stats.unread_octets + 6
    peers[0].call("Unary", b"x" * 7)
    peers[0].send()
    assert [peer.is_dropped for peer in peers] == [False, True, False]
    assert rig.port.stats.unread == 1
    assert rig.stats.unread_octets < 300
    for peer in peers:
        peer.lose()
    assert rig.stats.unread_octets == 0


def test_answers_of_one_turn_count_before_any_is_written() -> None:
    rig = PortRig()
    rig.stats.unread_max = 10_000
    peer = rig.connect()
    peer.begin()
    for _ in range(20):
        peer.call("Hold")
    peer.send()
    most = 0
    for call in rig.held:
        call.reply(b"x" * 1_000)
        most = max(most, rig.stats.unread_octets)
    assert most <= 10_000
    assert peer.is_dropped


def test_answers_that_are_read_count_no_more() -> None:
    rig = PortRig()
    peer = rig.connect(room=10)
    leave_unread(peer, 1_000)
    assert rig.stats.unread_octets > 1_000
    peer.transport.read()
    assert rig.stats.unread_octets == 0
    peer.call("Unary", b"x" * 1_000)
    peer.send()
    assert rig.stats.unread_octets == 1_000
    rig.clock.advance(0)
    assert rig.stats.unread_octets > 1_000
    peer.transport.read()
    assert rig.stats.unread_octets == 0


def test_answers_that_wait_for_a_closed_window_count_as_unread() -> None:
    rig = PortRig()
    peer = rig.connect()
    peer.begin()
    peer.grpc.open("/test.Echo/Open", lambda message: None, lambda code, text: None)
    peer.send()
    rig.held[0].send(b"x" * 2_000_000)
    rig.clock.advance(0)
    assert rig.stats.unread_octets == 5 + 2_000_000 - Limits().stream_window
    rig.stats.unread_max = rig.stats.unread_octets
    rig.held[0].send(b"x")
    assert peer.is_dropped


def test_bound_holds_over_all_ports_of_a_member() -> None:
    stats = ServerStats()
    unread = UnreadTotal(stats)
    first, second = (PortRig(unread=unread, stats=stats) for _ in range(2))
    one, other = first.connect(room=10), second.connect(room=10)
    leave_unread(one, 1_000)
    leave_unread(other, 2_000)
    stats.unread_max = stats.unread_octets
    one.call("Unary", b"x")
    one.send()
    assert (one.is_dropped, other.is_dropped) == (False, True)
    assert (first.port.stats.unread, second.port.stats.unread) == (0, 1)


def test_clients_of_http_1_that_read_nothing_count_among_all() -> None:
    stats = ServerStats()
    rig = PortRig(stats=stats)
    get = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    post = b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n" + bytes(500)
    first, most, last = (rig.connect(room=10) for _ in range(3))
    first.protocol.dataReceived(get)
    most.protocol.dataReceived(post)
    held = stats.unread_octets
    assert held > 600
    stats.unread_max = held
    last.protocol.dataReceived(get)
    assert [peer.is_dropped for peer in (first, most, last)] == [False, True, False]
    assert 0 < stats.unread_octets < held
    first.transport.read()
    last.lose()
    most.lose()
    assert stats.unread_octets == 0


def test_a_transport_is_given_much_in_pieces() -> None:
    rig = PortRig()
    peer = rig.connect(room=1)
    peer.begin()
    peer.grpc.open("/test.Echo/Open", lambda message: None, lambda code, text: None)
    peer.send()
    for size in (100_000, 300_000, 600_000):
        rig.held[0].send(b"x" * size)
    rig.clock.advance(0)
    assert len(peer.transport.value()) <= PIECE_SIZE + 16_384
    received = 0
    while data := peer.transport.read():
        assert len(data) <= PIECE_SIZE + 16_384
        received += len(data)
    assert received > 1_000_000
    assert rig.stats.unread_octets == 0
    assert rig.held[0].queued == 0
