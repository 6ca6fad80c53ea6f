"""Messages by post: connections, bounds, answers, loss.  No sockets, a fake clock."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from twisted.internet.task import Clock

from etcdtw.raft.entry import Entry
from etcdtw.raft.message import MSG_HEARTBEAT, MSG_PROP, Message
from etcdtw.transport.peer.pipeline import CONNECTIONS_MAX, POST_QUEUE_MAX
from tests.transport.peer.peer_rig import (
    ONE,
    TWO,
    Member,
    Silent,
    WireEnd,
    Wires,
    heartbeat,
    pass_time,
    settle,
    url_of,
)


def test_posts_that_wait_are_bounded(tmp_path: Path) -> None:
    wires = Wires(Clock())
    one = Member(wires, ONE)
    wires.listeners["http://silent:1"] = Silent
    one.network.set_remote(TWO, ["http://silent:1"])
    pair_count = CONNECTIONS_MAX + POST_QUEUE_MAX
    for i in range(pair_count):
        one.network.send([heartbeat(TWO, ONE, commit=i)])
    settle(wires.clock)
    assert one.receiver.unreachable == []
    assert len(wires.dialled) == CONNECTIONS_MAX
    one.network.send([heartbeat(TWO, ONE)])
    settle(wires.clock)
    assert one.receiver.unreachable == [TWO]
    pass_time(wires.clock, 7.5)  # the posts time out, and those that wait are dropped
    assert one.network.stats()[TWO].send_failures == 1 + pair_count


def test_posts_use_few_connections_and_keep_them(tmp_path: Path) -> None:
    wires = Wires(Clock())
    one, two = Member(wires, ONE), Member(wires, TWO)
    one.network.set_remote(TWO, [url_of(TWO)])
    for i in range(40):
        one.network.send([heartbeat(TWO, ONE, commit=i)])
        settle(wires.clock)
    assert len(wires.dialled) == 1
    one.network.send([heartbeat(TWO, ONE, commit=i) for i in range(40)])
    settle(wires.clock)
    assert len(wires.dialled) == CONNECTIONS_MAX
    assert len(two.receiver.messages) == 80


def test_a_post_on_a_connection_that_was_closed_meanwhile_is_sent_again(tmp_path: Path) -> None:
    wires = Wires(Clock())
    one, two = Member(wires, ONE), Member(wires, TWO)
    one.network.set_remote(TWO, [url_of(TWO)])
    one.network.send([heartbeat(TWO, ONE, commit=1)])
    settle(wires.clock)
    wires.ends[0].other.is_open = False  # its octets go nowhere
    one.network.send([heartbeat(TWO, ONE, commit=2)])
    wires.ends[0].other.is_open = True
    wires.ends[0].other.incoming.clear()
    wires.ends[0].other.abortConnection()
    settle(wires.clock)
    assert [m.commit for m in two.receiver.messages] == [1, 2]
    assert one.receiver.unreachable == []


def test_a_proposal_is_never_posted_twice(tmp_path: Path) -> None:
    wires = Wires(Clock())
    one, two = Member(wires, ONE), Member(wires, TWO)
    one.network.set_remote(TWO, [url_of(TWO)])
    one.network.send([heartbeat(TWO, ONE)])
    settle(wires.clock)
    proposal = Message(MSG_PROP, to=TWO, from_id=ONE, entries=[Entry(0, 0, data=b"put")])
    one.network.send([proposal])
    wires.ends[0].other.pump()  # it is taken, and the connection breaks before the answer comes
    assert [m.type for m in two.receiver.messages] == [MSG_HEARTBEAT, MSG_PROP]
    wires.ends[0].other.abortConnection()
    settle(wires.clock)
    assert [m.type for m in two.receiver.messages] == [MSG_HEARTBEAT, MSG_PROP]
    assert one.receiver.unreachable == [TWO]


class Posted(Silent):
    """Answers every post with ``answer``."""

    answer = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        assert self.transport is not None
        self.transport.write(self.answer)


def posting(answer: bytes) -> tuple[Member, list[Posted]]:
    """Return a member with one remote, and the connections to that."""
    served: list[Posted] = []

    def serve() -> Posted:
        served.append(Posted())
        served[-1].answer = answer
        return served[-1]

    one = Member(Wires(Clock()), ONE)
    one.wires.listeners["http://two:1"] = serve
    one.network.set_remote(TWO, ["http://two:1"])
    return one, served


@pytest.mark.parametrize(
    ("answer", "unreachable", "removed", "connections"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", [], 0, 1),
        (b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", [], 0, 2),
        (b"HTTP/1.1 412 P\r\nContent-Length: 3\r\n\r\nno\n", [TWO, TWO], 0, 1),
        (b"HTTP/1.1 500 I\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", [TWO, TWO], 0, 2),
        (b"HTTP/1.1 403 F\r\nX-Etcd-Cluster-ID: c1\r\nContent-Length: 0\r\n\r\n", [], 1, 1),
        (b"HTTP/1.1 403 F\r\nContent-Length: 0\r\n\r\n", [TWO, TWO], 0, 1),  # of a proxy
        (b"rubbish\r\n\r\n", [TWO, TWO], 0, 2),
    ],
)
def test_the_answer_to_a_post_decides(
    answer: bytes, unreachable: list[int], removed: int, connections: int
) -> None:
    one, served = posting(answer)
    for i in range(2):
        one.network.send([heartbeat(TWO, ONE, commit=i)])
        settle(one.clock)
    assert one.receiver.unreachable == unreachable
    assert one.receiver.removed_count == removed
    assert len(served) == connections
    assert sum(one_of.received.count(b"POST /raft HTTP/1.1") for one_of in served) == 2
    assert one.network.stats()[TWO].send_failures == len(unreachable)


def test_a_post_whose_connection_breaks_is_lost_and_the_next_url_tried() -> None:
    one, served = posting(b"")
    one.network.send([heartbeat(TWO, ONE)])
    settle(one.clock)
    transport = served[0].transport
    assert transport is not None
    cast(WireEnd, transport).abortConnection()
    settle(one.clock)
    assert one.receiver.unreachable == [TWO]
    assert len(served) == 1


@pytest.mark.parametrize(("kind", "sendings"), [(MSG_HEARTBEAT, 2), (MSG_PROP, 1)])
def test_a_proposal_is_never_sent_again(kind: int, sendings: int) -> None:
    """The peer may have read it; Raft would take it for another, and apply it over later ones."""
    one, served = posting(b"HTTP/1.1 204 No Content\r\n\r\n")
    one.network.send([heartbeat(TWO, ONE)])
    settle(one.clock)
    served[0].answer = b""
    entries = [Entry(0, 0, data=b"a put")]
    one.network.send([Message(kind, to=TWO, from_id=ONE, term=1, entries=entries)])
    settle(one.clock)
    assert b"a put" in served[0].received
    cast(WireEnd, served[0].transport).abortConnection()
    settle(one.clock)
    assert sum(one_of.received.count(b"a put") for one_of in served) == sendings
    assert one.receiver.unreachable == ([TWO] if sendings == 1 else [])


def test_a_transport_that_stops_drops_its_posts() -> None:
    for listener in ("hangs", Silent):
        one, _ = posting(b"")
        one.wires.listeners["http://two:1"] = listener
        one.network.send([heartbeat(TWO, ONE)] * (CONNECTIONS_MAX + 3))
        settle(one.clock)
        one.network.stop()
        settle(one.clock)
        assert one.clock.getDelayedCalls() == []
        assert one.wires.open_ends() == []
        assert one.receiver.unreachable == []


def test_an_idle_connection_that_the_peer_closes_is_no_loss() -> None:
    one, served = posting(b"HTTP/1.1 204 No Content\r\n\r\n")
    one.network.send([heartbeat(TWO, ONE)])
    settle(one.clock)
    transport = served[0].transport
    assert transport is not None
    transport.loseConnection()
    settle(one.clock)
    one.network.send([heartbeat(TWO, ONE)])
    settle(one.clock)
    assert one.receiver.unreachable == []
    assert len(served) == 2
