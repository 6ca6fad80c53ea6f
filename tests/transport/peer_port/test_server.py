"""The peer port with fake sockets and a fake clock: every status and text, bounds, bad input."""

from __future__ import annotations

from pathlib import Path
from struct import pack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from etcdtw.raft.entry import Entry, Snapshot
from etcdtw.raft.message import (
    MSG_APP,
    MSG_APP_RESP,
    MSG_HUP,
    MSG_PROP,
    MSG_READ_INDEX,
    MSG_SNAP,
    Message,
)
from etcdtw.rafthttp.codec import encode_message
from etcdtw.rafthttp.headers import request_headers
from etcdtw.rafthttp.http import LAST_CHUNK, encode_chunk, encode_request
from etcdtw.transport.peer.network import REMOTES_MAX
from etcdtw.transport.peer_port.answers import rfc3339_nano
from etcdtw.transport.peer_port.places import PlaceBounds
from etcdtw.transport.peer_port.server import PeerBounds
from tests.transport.peer.peer_rig import (
    CLUSTER,
    ONE,
    PEER,
    THREE,
    TWO,
    Member,
    Question,
    Wires,
    heartbeat,
    identity_of,
    pass_time,
    settle,
    url_of,
)
from tests.transport.tls.tls_rig import log_lines

TEXT = "text/plain; charset=utf-8"
POSTED = encode_message(heartbeat(ONE, TWO))
BOUNDS = PeerBounds(places=PlaceBounds(total_max=3), post_size_max=4096, bodies_size_max=6000)


@pytest.fixture
def one(tmp_path: Path) -> Member:
    """Member `ONE`, which knows `TWO` as a peer; nobody listens there."""
    member = Member(Wires(Clock()), ONE, tmp_path, bounds=BOUNDS)
    member.network.set_peer(TWO, [url_of(TWO)])
    return member


MESSAGE_STREAM = f"/raft/stream/message/{TWO:x}"


@pytest.mark.parametrize(
    ("method", "path", "changes", "status", "text"),
    [
        ("GET", "/raft", {}, 405, "Method Not Allowed"),
        ("POST", "/raft", {"version": None}, 412, "incompatible version"),
        ("POST", "/raft", {"version": "2.3.0"}, 412, "incompatible version"),
        ("POST", "/raft", {"version": "rubbish"}, 412, "incompatible version"),
        ("POST", "/raft", {"min_version": "3.6.0"}, 412, "incompatible version"),
        ("POST", "/raft", {"min_version": None}, 204, ""),
        ("POST", "/raft", {"version": "3.7.0"}, 204, ""),
        ("POST", "/raft", {"cluster": "c2"}, 412, "cluster ID mismatch"),
        ("POST", "/raft", {"cluster": None}, 412, "cluster ID mismatch"),
        ("POST", MESSAGE_STREAM, {}, 405, "Method Not Allowed"),
        ("GET", MESSAGE_STREAM, {"version": "2.3.0"}, 412, "incompatible version"),
        ("GET", MESSAGE_STREAM, {"cluster": "c2"}, 412, "cluster ID mismatch"),
        ("GET", MESSAGE_STREAM, {"to": "a2"}, 412, "to field mismatch"),
        ("GET", MESSAGE_STREAM, {"to": None}, 412, "to field mismatch"),
        ("GET", "/raft/stream/other/b2", {}, 404, "invalid path"),
        ("GET", "/raft/stream/b2", {}, 404, "invalid path"),
        ("GET", "/raft/stream/message/", {}, 404, "invalid from"),
        ("GET", "/raft/stream/message/xyz", {}, 404, "invalid from"),
        ("GET", "/raft/stream/msgapp/c3", {}, 404, "error sender not found"),
        ("GET", "/raft/snapshot", {}, 405, "Method Not Allowed"),
        ("POST", "/raft/snapshot", {"version": "2.3.0"}, 412, "incompatible version"),
        ("POST", "/raft/snapshot", {"cluster": "c2"}, 412, "cluster ID mismatch"),
        ("GET", "/raft/stream", {}, 404, "404 page not found"),
        ("GET", "/raft/", {}, 404, "404 page not found"),
        ("GET", "/", {}, 404, "404 page not found"),
        ("GET", "/fails", {}, 500, "Internal Server Error"),
        ("GET", "/raises", {}, 500, "Internal Server Error"),
    ],
)
def test_each_answer_has_etcds_status_and_text(
    one: Member, method: str, path: str, changes: dict[str, str | None], status: int, text: str
) -> None:
    question = Question(one)
    body = POSTED if method == "POST" else b""
    found, answer, headers = question.ask(method, path, body, **changes)
    assert (found, answer) == (status, text.encode() + b"\n" if text else b"")
    if text:
        assert headers["content-type"] == TEXT
        assert headers["x-content-type-options"] == "nosniff"
    if status == 405:
        assert headers["allow"] == ("GET" if "stream" in path else "POST")
    elif path.startswith("/raft/st") or path == "/raft":
        assert headers.get("x-etcd-cluster-id", f"{CLUSTER:x}") == f"{CLUSTER:x}"
        assert ("x-etcd-cluster-id" in headers) == (text != "404 page not found")
    # The connection is as good as before.
    assert question.ask("GET", "/echo")[0] == 200


def test_a_posted_message_reaches_the_member(one: Member) -> None:
    question = Question(one)
    status, body, headers = question.ask("POST", "/raft", POSTED)
    assert (status, body) == (204, b"")
    assert headers == {"x-etcd-cluster-id": f"{CLUSTER:x}"}
    assert [encode_message(m) for m in one.receiver.messages] == [POSTED]
    assert one.network.stats()[TWO].received_octets == len(POSTED)


@pytest.mark.parametrize(
    ("m", "reached"),
    [
        (heartbeat(THREE, TWO), False),  # to somebody else
        (heartbeat(ONE, THREE), False),  # not from who asks
        (Message(MSG_APP_RESP, to=ONE, from_id=TWO, term=1), True),
        (
            Message(MSG_PROP, to=ONE, from_id=THREE, entries=[Entry(0, 0)]),
            True,
        ),  # passed on by a follower
    ],
)
def test_a_message_must_come_from_and_go_to_whom_it_says(
    one: Member, m: Message, reached: bool
) -> None:
    question = Question(one)
    status, body, _ = question.ask("POST", "/raft", encode_message(m))
    assert len(one.receiver.messages) == reached
    if not reached:
        assert (status, body) == (500, b"error processing raft message\n")
        assert question.asker.is_closed


def test_a_removed_member_is_heard_no_more(one: Member) -> None:
    one.receiver.removed_ids.add(TWO)
    assert Question(one).ask("POST", "/raft", POSTED)[:2] == (
        500,
        b"error processing raft message\n",
    )
    assert Question(one).ask("GET", MESSAGE_STREAM)[:2] == (410, b"removed member\n")
    assert one.receiver.messages == []


@pytest.mark.parametrize(
    "m",
    [
        Message(MSG_HUP, to=ONE, from_id=TWO),
        Message(MSG_APP_RESP, to=ONE, from_id=TWO),  # without a term
        Message(MSG_SNAP, to=ONE, from_id=TWO, term=2, snapshot=Snapshot(7, 2)),
        Message(MSG_PROP, to=ONE, from_id=TWO),  # of nothing
        Message(MSG_READ_INDEX, to=ONE, from_id=TWO),  # without its context
        Message(MSG_APP, to=ONE, from_id=TWO, term=2, index=7, entries=[Entry(2, 9)]),
        Message(MSG_APP, to=ONE, from_id=TWO, term=2, index=7, entries=[Entry(2, 8), Entry(2, 8)]),
    ],
)
def test_what_never_travels_alone_is_ignored(one: Member, m: Message) -> None:
    assert Question(one).ask("POST", "/raft", encode_message(m))[0] == 204
    assert one.receiver.messages == []


def test_octets_that_are_no_message_are_refused(one: Member) -> None:
    question = Question(one)
    status, body, _ = question.ask("POST", "/raft", b"\x08")
    assert (status, body) == (400, b"error unmarshalling raft message\n")
    assert question.ask("POST", "/raft", POSTED)[0] == 204


def test_probing_says_the_time(one: Member) -> None:
    status, body, headers = Question(one).ask("GET", "/raft/probing")
    assert (status, body) == (200, b'{"OK":true,"Now":"2023-11-14T22:13:20.123Z"}\n')
    assert headers["content-type"] == TEXT


@pytest.mark.parametrize(
    ("unix_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (951_782_400_500_000_000, "2000-02-29T00:00:00.5Z"),
        (86_399_999_999_999, "1970-01-01T23:59:59.999999999Z"),
    ],
)
def test_times_are_written_as_go_writes_them(unix_ns: int, text: str) -> None:
    assert rfc3339_nano(unix_ns) == text


# -- strangers ---------------------------------------------------------------------------------


def test_a_stranger_that_says_its_urls_can_be_answered(one: Member) -> None:
    three = Member(one.wires, THREE)
    three.network.set_remote(ONE, [url_of(ONE)])
    question = Question(one)
    question.ask("GET", "/raft/stream/message/c3", server_from="c3", urls=url_of(THREE))
    assert not one.network.has_peer(THREE)
    one.network.send([heartbeat(THREE, ONE)])
    settle(one.clock)
    assert len(three.receiver.messages) == 1


def test_strangers_are_bounded_and_change_nobody(one: Member) -> None:
    for i in range(REMOTES_MAX + 5):
        stranger = f"{i + 0x1000:x}"
        Question(one).ask("POST", "/raft", POSTED, server_from=stranger, urls="http://x:1")
    Question(one).ask("POST", "/raft", POSTED, urls="http://evil:1")
    assert len(one.network.stats()) == REMOTES_MAX + 1
    one.network.send([heartbeat(TWO, ONE)])
    settle(one.clock)
    assert "http://evil:1" not in {url for _, url in one.wires.dialled}


# -- streams -----------------------------------------------------------------------------------


def test_a_stream_is_chunked_and_has_no_end(one: Member) -> None:
    question = Question(one)
    status, body, headers = question.ask("GET", MESSAGE_STREAM)
    assert (status, body) == (200, b"")
    assert headers == {
        "x-server-version": "3.5.1",
        "x-etcd-cluster-id": f"{CLUSTER:x}",
        "transfer-encoding": "chunked",
    }
    octets = encode_message(heartbeat(TWO, ONE))
    one.network.send([heartbeat(TWO, ONE)])
    settle(one.clock)
    assert question.asker.bodies == [pack(">Q", len(octets)) + octets]
    pass_time(one.clock, 600.0, 0.5)
    assert not question.asker.is_closed


def test_octets_behind_the_request_for_a_stream_are_ignored(one: Member) -> None:
    question = Question(one)
    question.ask("GET", MESSAGE_STREAM)
    for _ in range(10):
        question.send(b"x" * 100_000)
    assert not question.asker.is_closed


def test_a_newer_stream_replaces_the_older(one: Member) -> None:
    older, newer = Question(one), Question(one)
    older.ask("GET", MESSAGE_STREAM)
    newer.ask("GET", MESSAGE_STREAM)
    assert (older.asker.is_closed, newer.asker.is_closed) == (True, False)
    one.network.send([heartbeat(TWO, ONE)])
    settle(one.clock)
    assert newer.asker.bodies != [b""]


# -- pages -------------------------------------------------------------------------------------


def test_a_page_gets_method_path_and_body(one: Member) -> None:
    question = Question(one)
    status, body, headers = question.ask("GET", "/echo?query", b'{"revision":3}')
    assert (status, body, headers["x-asked"]) == (200, b'{"revision":3}', "GET")
    assert one.pages.asked == [("GET", "/echo", b'{"revision":3}')]


def test_the_body_of_a_page_is_bounded(one: Member) -> None:
    one.port.bounds = PeerBounds()
    size = one.port.bounds.page_size_max
    assert Question(one).ask("POST", "/echo", b"x" * size)[0] == 200
    assert Question(one).ask("POST", "/echo", b"x" * (size + 1))[0] == 413
    assert len(one.pages.asked) == 1


def test_a_body_without_a_length_is_bounded_too(one: Member) -> None:
    question = Question(one)
    head = encode_request("POST", "/raft", "h", request_headers(identity_of(TWO)))
    head = head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
    question.send(head + encode_chunk(b"x" * (BOUNDS.post_size_max + 1)))
    assert question.asker.heads[0].status == 413
    assert question.asker.is_closed
    assert one.port.collected_size == 0


def test_all_bodies_together_are_bounded(one: Member) -> None:
    head = encode_request(
        "POST", "/raft", "h", [*request_headers(identity_of(TWO)), ("Content-Length", "4000")]
    )
    first, second = Question(one), Question(one)
    first.send(head + b"x" * 3999)
    assert one.port.collected_size == 3999
    second.send(head + b"x" * 2500)
    assert second.asker.heads[0].status == 503
    assert one.port.collected_size == 3999
    first.end.abortConnection()
    settle(one.clock)
    assert one.port.collected_size == 0


def test_a_large_body_that_is_refused_is_not_read_to_its_end(one: Member) -> None:
    question = Question(one)
    head = encode_request(
        "POST",
        "/raft",
        "h",
        [*request_headers(identity_of(TWO, 0xC2)), ("Content-Length", "4096")],
    )
    question.send(head + b"x" * 4096)
    assert question.asker.heads[0].status == 412
    assert not question.asker.is_closed
    one.port.bounds = PeerBounds(discarded_size_max=1000)
    question.send(head + b"x" * 1001)
    assert [found.status for found in question.asker.heads] == [412, 412]
    assert question.asker.is_closed


def test_who_asks_first_whether_to_send_a_body_is_told(one: Member) -> None:
    for path, status in (("/raft", 204), ("/raft?", 204)):
        question = Question(one)
        headers = [*request_headers(identity_of(TWO)), ("Expect", "100-continue")]
        headers.append(("Content-Length", str(len(POSTED))))
        question.send(encode_request("POST", path, "h", headers))
        assert question.end.incoming == b""
        question.send(POSTED)
        assert question.asker.heads[-1].status == status
    question = Question(one)
    headers = [*request_headers(identity_of(TWO, 0xC2)), ("Expect", "100-continue")]
    question.send(encode_request("POST", "/raft", "h", [*headers, ("Content-Length", "9")]))
    assert question.asker.heads[-1].status == 412
    assert question.asker.is_closed


def test_requests_may_follow_each_other_without_waiting(one: Member) -> None:
    question = Question(one, piece_size=7)
    question.send(encode_request("GET", "/echo", "h", ()) * 20)
    assert [head.status for head in question.asker.heads] == [200] * 20


def test_a_page_that_hangs_is_given_up(one: Member) -> None:
    question = Question(one)
    question.ask("GET", "/hangs")
    pass_time(one.clock, one.port.bounds.page_s + 0.1)
    assert question.asker.is_closed
    assert one.pages.cancelled == 1


def test_a_page_is_cancelled_when_the_peer_hangs_up(one: Member) -> None:
    question = Question(one)
    question.ask("GET", "/hangs")
    question.end.abortConnection()
    settle(one.clock)
    assert one.pages.cancelled == 1


def test_a_peer_that_goes_on_asking_while_it_waits_is_dropped(one: Member) -> None:
    question = Question(one)
    question.ask("GET", "/hangs")
    for _ in range(4):
        question.send(b"x" * (one.port.bounds.unread_size_max // 2))
    assert question.asker.is_closed


def test_a_peer_that_reads_no_answers_is_answered_no_more(one: Member) -> None:
    question = Question(one)
    question.end.reads = False
    body = b"x" * 60_000
    head = encode_request("GET", "/echo", "h", [("Content-Length", str(len(body)))])
    for _ in range(20):
        question.send(head + body)
    assert len(one.pages.asked) < 10
    assert not one.network.stats()[TWO].receive_failures


# -- time --------------------------------------------------------------------------------------


@pytest.mark.parametrize("octets", [b"", b"GET", b"GET / HTTP/1.1\r\nA: b\r\n", b"\r\n"])
def test_a_head_must_come_in_time(one: Member, octets: bytes) -> None:
    question = Question(one)
    question.send(octets)
    for _ in range(9):
        pass_time(one.clock, 1.0, 0.5)
        question.send(b"\r\n" if octets == b"\r\n" else octets[:1].lower())
    assert one.port.counts.silent == 0
    pass_time(one.clock, 1.1, 0.5)
    assert one.port.counts.silent == 1
    assert question.asker.is_closed


def test_a_body_must_come_in_time(one: Member) -> None:
    question = Question(one)
    head = encode_request("POST", "/echo", "h", [("Content-Length", "1000")])
    question.send(head)
    for _ in range(59):
        pass_time(one.clock, 1.0, 0.5)
        question.send(b"x")
    assert one.port.counts.silent == 0
    pass_time(one.clock, 1.1, 0.5)
    assert question.asker.is_closed


def test_an_idle_connection_is_closed_after_a_while(one: Member) -> None:
    question = Question(one)
    question.ask("GET", "/echo")
    pass_time(one.clock, one.port.bounds.idle_s - 1, 0.5)
    assert question.ask("GET", "/echo")[0] == 200
    pass_time(one.clock, one.port.bounds.idle_s + 1, 0.5)
    assert question.asker.is_closed


def test_connections_are_bounded_and_close_with_the_port(one: Member) -> None:
    questions = [Question(one) for _ in range(BOUNDS.places.total_max + 1)]
    settle(one.clock)
    assert one.port.connection_count == BOUNDS.places.total_max
    assert [question.asker.is_closed for question in questions] == [True, False, False, False]
    one.port.close()
    settle(one.clock)
    assert all(question.asker.is_closed for question in questions)
    assert one.port.connection_count == 0
    assert one.accept() is None


def test_strangers_have_less_time_and_cannot_take_the_members_places(tmp_path: Path) -> None:
    bounds = PeerBounds(places=PlaceBounds(strangers_max=4, stranger_max=2))
    one = Member(Wires(Clock()), ONE, tmp_path, bounds=bounds, is_member=PEER.host.__eq__)
    member = Question(one)
    one.address = IPv4Address("TCP", "192.0.2.1", 1)
    strangers = [Question(one) for _ in range(bounds.places.stranger_max + 1)]
    settle(one.clock)
    assert [stranger.asker.is_closed for stranger in strangers] == [True, False, False]
    assert strangers[1].ask("GET", "/echo")[0] == 200
    pass_time(one.clock, bounds.stranger_s + 1, 0.5)
    assert all(stranger.asker.is_closed for stranger in strangers)
    assert member.ask("GET", "/echo")[0] == 200


def test_whoever_completes_a_handshake_of_the_authority_is_no_stranger(tmp_path: Path) -> None:
    one = Member(Wires(Clock()), ONE, tmp_path, is_member=PEER.host.__ne__, proves=True)
    known, unknown = Question(one), Question(one)
    assert known.server is not None
    known.server.handshakeCompleted()
    pass_time(one.clock, one.port.bounds.stranger_s + 1, 0.5)
    assert unknown.asker.is_closed
    assert known.ask("GET", "/echo")[0] == 200
    pass_time(one.clock, one.port.bounds.stranger_s + 1, 0.5)
    assert not known.asker.is_closed


def test_another_clusters_member_is_logged_with_both_ids_and_what_to_compare(one: Member) -> None:
    with log_lines() as lines:
        question = Question(one)
        headers = request_headers(identity_of(TWO, cluster_id=0xC2))
        question.send(encode_request("POST", "/raft", "h", [*headers, ("Content-Length", "0")]))
    (line,) = lines
    assert "cluster ID mismatch: this member is of cluster c1, the other of 'c2'; compare" in line


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"A" * 20_000, 431),
    ],
)
def test_garbage_is_answered_and_dropped(one: Member, octets: bytes, status: int) -> None:
    other = Question(one)
    question = Question(one)
    with log_lines() as lines:
        question.send(octets)
    assert question.asker.heads[0].status == status
    assert question.asker.is_closed
    assert one.port.counts.garbage == 1
    assert [line.partition(" from ")[0] for line in lines] == [
        "rejected connection on peer endpoint"
    ]
    assert other.ask("GET", "/echo")[0] == 200


VALID = (
    encode_request("GET", "/echo", "h", ()),
    encode_request("GET", MESSAGE_STREAM, "h", request_headers(identity_of(TWO), ONE)),
    encode_request(
        "POST",
        "/raft",
        "h",
        [*request_headers(identity_of(TWO)), ("Content-Length", str(len(POSTED)))],
    )
    + POSTED,
    encode_request(
        "POST",
        "/raft/snapshot",
        "h",
        [*request_headers(identity_of(TWO)), ("Transfer-Encoding", "chunked")],
    )
    + encode_chunk(pack(">Q", len(POSTED)) + POSTED)
    + LAST_CHUNK,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(VALID), max_size=3),
    st.lists(st.tuples(st.integers(0, 1000), st.binary(max_size=4)), max_size=3),
    st.sampled_from([1, 13, 65536]),
)
def test_damaged_requests_harm_nobody(
    requests: list[bytes], damages: list[tuple[int, bytes]], piece_size: int
) -> None:
    one = Member(Wires(Clock()), ONE, Path("/nowhere"), bounds=BOUNDS)
    one.network.set_peer(TWO, [url_of(TWO)])
    octets = b"".join(requests)
    for position, damage in damages:
        octets = octets[:position] + damage + octets[position + len(damage) :]
    other, question = Question(one), Question(one, piece_size)
    question.send(octets)
    assert other.ask("GET", "/raft/probing")[0] == 200
    question.end.abortConnection()
    other.end.abortConnection()
    settle(one.clock)
    assert one.port.connection_count == 0
    assert one.port.collected_size == 0
