"""Members of ours with each other: streams, posts, liveness, loss.  No sockets, a fake clock."""

from __future__ import annotations

from pathlib import Path
from struct import pack

import pytest
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from etcdtw.raft.message import MSG_APP_RESP, Message
from etcdtw.rafthttp.codec import encode_message
from etcdtw.transport.peer.client import build_dial
from etcdtw.transport.peer.outlet import (
    LINK_HEARTBEAT_S,
    QUEUE_MESSAGES_MAX,
    QUEUE_SIZE_MAX,
    WRITE_STALL_S,
)
from etcdtw.transport.peer.pipeline import CONNECTIONS_MAX
from etcdtw.transport.peer.seams import PeerTransport
from tests.support.peer_messages import same
from tests.transport.peer.peer_rig import (
    ONE,
    THREE,
    TWO,
    Member,
    Pair,
    Silent,
    Wires,
    append,
    heartbeat,
    pass_time,
    settle,
    url_of,
)

PROBERS = 2
"""Connections of the probers of a pair, from the first probe on."""


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_a_network_is_a_peer_transport(pair: Pair) -> None:
    transport: PeerTransport = pair.one.network
    assert transport.connected_since_ms(TWO) is not None


def test_four_streams_connect_two_members(pair: Pair) -> None:
    assert len(pair.wires.open_ends()) == 4
    assert pair.one.network.connected_since_ms(TWO) == pair.two.network.connected_since_ms(ONE)
    assert pair.one.network.connected_since_ms(THREE) is None
    assert pair.one.receiver.messages == pair.two.receiver.messages == []


@pytest.mark.parametrize("piece_size", [1, 7, 65536])
def test_messages_arrive_in_the_order_they_were_sent(tmp_path: Path, piece_size: int) -> None:
    pair = Pair(tmp_path, piece_size)
    appends = [append(TWO, ONE, 5 + i) for i in range(4)]
    others = [Message(MSG_APP_RESP, to=TWO, from_id=ONE, term=2, index=i) for i in range(4)]
    pair.one.network.send([m for two in zip(appends, others, strict=True) for m in two])
    settle(pair.clock)
    got = pair.two.receiver.messages
    assert same([m for m in got if m.entries]) == same(appends)
    assert same([m for m in got if not m.entries]) == same(others)


def test_a_turn_is_one_write_for_each_stream(pair: Pair) -> None:
    ends = pair.serving_ends(pair.one)
    before = [end.writes for end in ends]
    sent = [append(TWO, ONE, 5 + i) for i in range(10)] + [heartbeat(TWO, ONE)] * 10
    pair.one.network.send(sent)
    assert sorted(end.writes - old for end, old in zip(ends, before, strict=True)) == [1, 1]
    settle(pair.clock)
    assert len(pair.two.receiver.messages) == 20


def test_octets_are_counted_at_both_ends(pair: Pair) -> None:
    before = pair.one.network.stats()[TWO].sent_octets
    pair.one.network.send([heartbeat(TWO, ONE)])
    settle(pair.clock)
    size = 8 + len(encode_message(heartbeat(TWO, ONE)))
    assert pair.one.network.stats()[TWO].sent_octets - before == size
    assert pair.two.network.stats()[ONE].received_octets >= size


def test_idle_streams_stay_open(pair: Pair) -> None:
    since = pair.one.network.connected_since_ms(TWO)
    pass_time(pair.clock, 60.0, 0.1)
    assert len(pair.wires.ends) == 4 + PROBERS
    assert pair.one.network.connected_since_ms(TWO) == since
    assert pair.one.receiver.messages == []


def test_silence_tears_a_stream_down_and_it_is_dialled_again(pair: Pair) -> None:
    for end in pair.wires.ends:
        end.reads = False
    pass_time(pair.clock, 6.0)
    assert all(not end.is_open for end in pair.wires.ends[:4])
    assert pair.one.network.connected_since_ms(TWO) is not None  # by new ones
    assert len(pair.wires.open_ends()) == 4 + PROBERS
    assert pair.one.network.stats()[TWO].disconnects == 1


def test_without_a_message_stream_appends_go_by_post(pair: Pair) -> None:
    pair.two.network.stop()  # it opens no streams, and ours to it are gone
    two = Member(pair.wires, TWO)
    two.network.set_remote(ONE, [url_of(ONE)])
    settle(pair.clock)
    sent = [append(TWO, ONE, 5), heartbeat(TWO, ONE)]
    pair.one.network.send(sent)
    settle(pair.clock)
    assert sorted(same(two.receiver.messages)) == sorted(same(sent))


def test_appends_go_by_the_message_stream_while_their_own_is_down(pair: Pair) -> None:
    (appends,) = [
        end for end in pair.serving_ends(pair.one) if end.protocol._outlet.kind == "msgapp"
    ]
    pair.wires.listeners[url_of(ONE)] = None
    appends.abortConnection()
    settle(pair.clock)
    before = len(pair.wires.dialled)
    pair.one.network.send([append(TWO, ONE, 5)])
    assert len(pair.wires.dialled) == before  # no post
    settle(pair.clock)
    assert same(pair.two.receiver.messages) == same([append(TWO, ONE, 5)])


def test_a_lost_stream_is_reported_at_the_next_turn(pair: Pair) -> None:
    for end in pair.serving_ends(pair.one):
        end.abortConnection()
    assert pair.one.receiver.unreachable == []
    settle(pair.clock)
    assert pair.one.receiver.unreachable == [TWO]


def test_messages_that_name_another_sender_or_target_are_dropped(pair: Pair) -> None:
    (outlet,) = [
        end.protocol._outlet
        for end in pair.serving_ends(pair.one)
        if end.protocol._outlet.kind == "message"
    ]
    for m in (heartbeat(THREE, ONE), heartbeat(TWO, THREE), heartbeat(TWO, ONE)):
        outlet.push(m)
    outlet.flush()
    settle(pair.clock)
    assert same(pair.two.receiver.messages) == same([heartbeat(TWO, ONE)])
    assert pair.two.network.stats()[ONE].receive_failures == 2
    assert len(pair.wires.open_ends()) == 4


def test_a_malformed_stream_is_dropped_and_harms_no_other(pair: Pair) -> None:
    for end in pair.serving_ends(pair.one):
        kind = end.protocol._outlet.kind
        end.write(b"1\r\n\xff\r\n" if kind == "msgapp" else b"8\r\n" + b"\xff" * 8 + b"\r\n")
    settle(pair.clock)
    assert pair.two.network.stats()[ONE].receive_failures == 2
    pass_time(pair.clock, 0.3)
    assert len(pair.wires.open_ends()) == 4
    pair.one.network.send([heartbeat(TWO, ONE), append(TWO, ONE, 9)])
    settle(pair.clock)
    assert len(pair.two.receiver.messages) == 2


# -- a peer that does not read -----------------------------------------------------------------


def stuff(pair: Pair, count: int, size: int) -> None:
    """Send ``count`` messages of ``size`` octets to a peer that reads none of them."""
    for i in range(count):
        pair.one.network.send([append(TWO, ONE, 5 + i, 1, size)])


def stop_reading(pair: Pair) -> None:
    for end in pair.serving_ends(pair.one):
        end.other.reads = False


def test_what_a_peer_does_not_read_waits_in_order(pair: Pair) -> None:
    stop_reading(pair)
    stuff(pair, 100, 10_000)
    assert pair.two.receiver.messages == []
    for end in pair.serving_ends(pair.one):
        end.other.resumeProducing()
    settle(pair.clock, 100)
    assert [m.index for m in pair.two.receiver.messages] == list(range(5, 105))
    assert pair.one.receiver.unreachable == []


def test_waiting_messages_are_bounded_by_count(pair: Pair) -> None:
    stop_reading(pair)
    stuff(pair, 7, 10_000)  # the buffers are full now
    stuff(pair, QUEUE_MESSAGES_MAX, 1)
    settle(pair.clock)
    assert pair.one.receiver.unreachable == []
    stuff(pair, 2, 1)
    settle(pair.clock)
    assert pair.one.receiver.unreachable == [TWO]
    assert pair.one.network.stats()[TWO].send_failures == 2


def test_waiting_messages_are_bounded_by_size(pair: Pair) -> None:
    stop_reading(pair)
    stuff(pair, 7, 10_000)
    size = QUEUE_SIZE_MAX // 4
    stuff(pair, 4, size)
    settle(pair.clock)
    assert pair.one.receiver.unreachable == []
    stuff(pair, 1, 1)
    settle(pair.clock)
    assert pair.one.receiver.unreachable == [TWO]


def test_a_peer_that_never_reads_is_dropped_and_dials_again(pair: Pair) -> None:
    stop_reading(pair)
    stuff(pair, 10, 10_000)
    pass_time(pair.clock, WRITE_STALL_S + LINK_HEARTBEAT_S + 0.1)
    assert pair.one.receiver.unreachable[0] == TWO
    pass_time(pair.clock, 0.3)
    pair.one.network.send([append(TWO, ONE, 200)])
    settle(pair.clock)
    assert pair.two.receiver.messages[-1].index == 200


# -- dialling ----------------------------------------------------------------------------------


def test_each_stream_is_dialled_at_most_ten_times_a_second(tmp_path: Path) -> None:
    wires = Wires(Clock())
    one = Member(wires, ONE)
    one.network.set_peer(TWO, ["http://a:1", "http://b:1"])
    pass_time(wires.clock, 2.0, 0.01)
    assert 2 * 18 <= len(wires.dialled) <= 2 * 21
    # After a failure the other URL is tried.
    assert {url for _, url in wires.dialled[:4]} == {"http://a:1", "http://b:1"}


def test_a_peer_that_hangs_is_given_up_after_the_dial_timeout(tmp_path: Path) -> None:
    wires = Wires(Clock())
    one = Member(wires, ONE)
    wires.listeners["http://a:1"] = "hangs"
    one.network.set_peer(TWO, ["http://a:1"])
    pass_time(wires.clock, 1.9)
    assert len(wires.dialled) == 2
    pass_time(wires.clock, 0.3)
    assert len(wires.dialled) == 4


def test_a_peer_that_accepts_and_never_answers_harms_no_other(pair: Pair) -> None:
    pair.wires.listeners["http://silent:1"] = Silent
    pair.one.network.set_peer(THREE, ["http://silent:1"])
    for i in range(300):
        pair.one.network.send([heartbeat(THREE, ONE), heartbeat(TWO, ONE, commit=i)])
    settle(pair.clock)
    assert len(pair.two.receiver.messages) == 300
    pass_time(pair.clock, 10.0, 0.1)
    assert set(pair.one.receiver.unreachable) == {THREE}
    assert len(pair.wires.open_ends()) <= 4 + 2 + CONNECTIONS_MAX
    assert pair.one.network.connected_since_ms(THREE) is None
    assert pair.one.network.connected_since_ms(TWO) is not None


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://127.0.0.1:1", TCP4ClientEndpoint),
        ("http://[::1]:1", TCP6ClientEndpoint),
        ("http://localhost:1", HostnameEndpoint),
        ("unix:///run/peer.sock", UNIXClientEndpoint),
    ],
)
def test_each_url_has_its_endpoint(url: str, kind: type) -> None:
    assert isinstance(build_dial(MemoryReactorClock(), None, 1.0)(url), kind)


def test_tls_wraps_the_endpoint_with_the_name_to_verify() -> None:
    wrapped: list[tuple[object, str]] = []

    def wrap(endpoint: IStreamClientEndpoint, host: str) -> IStreamClientEndpoint:
        wrapped.append((endpoint, host))
        return endpoint

    endpoint = build_dial(MemoryReactorClock(), wrap, 1.0)("https://peer.example:1")
    assert wrapped == [(endpoint, "peer.example")]
    with pytest.raises(ValueError, match="https://a:1 needs TLS"):
        build_dial(MemoryReactorClock(), None, 1.0)("https://a:1")


def test_a_peer_of_another_cluster_gets_nothing(tmp_path: Path) -> None:
    wires = Wires(Clock())
    one, two = Member(wires, ONE), Member(wires, TWO, cluster_id=0xC2)
    one.network.set_peer(TWO, [url_of(TWO)])
    two.network.set_peer(ONE, [url_of(ONE)])
    pass_time(wires.clock, 1.0)
    one.network.send([heartbeat(TWO, ONE)])
    settle(wires.clock)
    assert two.receiver.messages == []
    assert one.network.connected_since_ms(TWO) is None
    assert one.receiver.unreachable == [TWO]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX-Etcd-Cluster-ID: c2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: http://evil:1/\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"A" * 100_000,
    ],
)
def test_a_bad_answer_to_a_stream_is_tried_again_later(tmp_path: Path, answer: bytes) -> None:
    class Answering(Silent):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(answer)

    wires = Wires(Clock())
    one = Member(wires, ONE)
    wires.listeners["http://bad:1"] = Answering
    one.network.set_peer(TWO, ["http://bad:1"])
    pass_time(wires.clock, 1.0)
    assert 10 <= len(wires.dialled) <= 2 * 11
    assert {url for _, url in wires.dialled} == {"http://bad:1"}
    assert one.network.connected_since_ms(TWO) is None
    assert len(wires.open_ends()) <= 2


def test_a_bad_url_is_no_reason_to_stop(tmp_path: Path) -> None:
    wires = Wires(Clock())
    one = Member(wires, ONE, dial=build_dial(MemoryReactorClock(), None, 1.0))
    one.network.set_peer(TWO, ["rubbish", "https://a:1"])
    one.network.send([heartbeat(TWO, ONE)])
    pass_time(wires.clock, 1.0)
    assert one.receiver.unreachable == [TWO]


# -- leaving -----------------------------------------------------------------------------------


def test_a_removed_member_is_told_by_410(pair: Pair) -> None:
    pair.one.receiver.removed_ids.add(TWO)
    pair.one.network.remove_peer(TWO)
    pass_time(pair.clock, 0.3)
    assert pair.two.receiver.removed_count == 1
    dialled = len(pair.wires.dialled)
    pass_time(pair.clock, 1.0)
    assert len(pair.wires.dialled) == dialled
    assert pair.one.network.connected_since_ms(TWO) is None


def test_a_stopped_member_is_quiet(pair: Pair) -> None:
    pair.one.network.stop()
    settle(pair.clock)
    assert pair.one.receiver.unreachable == []
    dialled = [url for _, url in pair.wires.dialled if url == url_of(TWO)]
    pair.one.network.send([heartbeat(TWO, ONE)])
    pair.one.network.set_peer(THREE, [url_of(THREE)])
    pass_time(pair.clock, 5.0)
    assert [url for _, url in pair.wires.dialled if url == url_of(TWO)] == dialled
    assert pair.one.receiver.unreachable == []
    assert pair.one.receiver.messages == []


def test_new_urls_are_dialled_when_the_old_connection_is_gone(pair: Pair) -> None:
    pair.wires.listeners["http://moved:1"] = pair.two.accept
    del pair.wires.listeners[url_of(TWO)]
    pair.one.network.set_peer(TWO, ["http://moved:1"])
    assert len(pair.wires.open_ends()) == 4
    for end in pair.wires.ends:
        end.abortConnection()
    pass_time(pair.clock, 0.5)
    assert len(pair.wires.open_ends()) == 4
    assert pair.wires.dialled[-1][1] in ("http://moved:1", url_of(ONE))


def test_the_length_of_a_stream_message_is_bounded_before_it_is_kept(pair: Pair) -> None:
    (end,) = [end for end in pair.serving_ends(pair.one) if end.protocol._outlet.kind == "message"]
    prefix = pack(">Q", 1 << 40)
    end.write(b"8\r\n" + prefix + b"\r\n")
    settle(pair.clock)
    assert not end.is_open


def test_members_are_dialled_from_the_address_that_is_given() -> None:
    for url, host in (("http://10.0.0.9:1", "10.0.0.9"), ("http://m2.test:1", "m2.test")):
        endpoint = build_dial(MemoryReactorClock(), None, 1.0, "10.0.0.7")(url)
        assert endpoint._bindAddress == ("10.0.0.7", 0)  # type: ignore[attr-defined]
        assert host in (getattr(endpoint, "_host", ""), getattr(endpoint, "_hostText", ""))
