"""JSON requests become calls within the member, and what those say becomes JSON."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any, cast

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import ITCPTransport

from etcdtw.gateway.json_gateway import BODY_SHARE, HELD_SIZE_MAX
from etcdtw.gateway.pages import Answer, Streamed
from etcdtw.gateway.routes import ROUTES
from etcdtw.gateway.transcoding.usual import USUAL_SIZE_MAX
from etcdtw.gateway.transcoding.writing import PIECE_SIZE
from etcdtw.grpc.call import UNAUTHENTICATED, Call, StatusError
from etcdtw.grpc.caller import Caller
from etcdtw.server.metrics.table import GRPC_METHODS
from tests.gateway.json_rig import MESSAGE_SIZE_MAX, Connection, JsonRig


def of(octets: bytes) -> str:
    return b64encode(octets).decode()


@pytest.fixture
def rig() -> JsonRig:
    rig = JsonRig()
    rig.start()
    return rig


def put(rig: JsonRig, key: bytes, value: bytes = b"v", **more: Any) -> None:
    assert rig.told("/v3/kv/put", {"key": of(key), "value": of(value), **more})[0] == 200


def test_keys_are_put_and_read(rig: JsonRig) -> None:
    put(rig, b"k", b"\xff\0")
    answer = rig.ask("/v3/kv/range", {"key": of(b"k")})
    assert answer.fields == ((b"Grpc-Metadata-Content-Type", b"application/grpc"),)
    told = json.loads(answer.body)
    assert told["count"] == "1"
    assert told["kvs"] == [
        {
            "key": of(b"k"),
            "create_revision": "2",
            "mod_revision": "2",
            "version": "1",
            "value": of(b"\xff\0"),
        }
    ]
    assert rig.is_idle


def test_what_a_service_refuses_is_an_error_in_json(rig: JsonRig) -> None:
    empty = (400, {"code": 3, "message": "etcdserver: key is not provided"})
    assert rig.told("/v3/kv/range", b"") == empty
    assert rig.told("/v3/kv/range", b" \n") == empty
    assert rig.told("/v3/kv/put", b"{}") == empty
    found = rig.told("/v3/lease/revoke", {"ID": 5})
    assert found == (404, {"code": 5, "message": "etcdserver: requested lease not found"})
    assert rig.told("/v3/auth/status") == (
        501,
        {"code": 12, "message": "unknown service etcdserverpb.Auth"},
    )


def test_a_body_that_cannot_be_read_is_refused(rig: JsonRig) -> None:
    for size in (0, USUAL_SIZE_MAX):
        status, told = rig.told("/v3/kv/range", b"%b{" % (b" " * size))
        assert (status, told) == (400, {"code": 3, "message": "unexpected EOF"})
    assert rig.told("/v3/kv/range", {"key": 1})[0] == 400


def test_a_long_body_is_read_in_turns(rig: JsonRig) -> None:
    value = bytes(range(256)) * 4_000
    said = rig.begin("/v3/kv/put", {"key": of(b"k"), "value": of(value)})
    assert rig.turns.waiting == 1
    assert rig.wait(said).status == 200
    streamed = rig.ask("/v3/kv/range", {"key": of(b"k")})
    assert isinstance(streamed, Streamed)
    told = json.loads(b"".join(rig.taken(streamed)))
    assert b64decode(told["kvs"][0]["value"]) == value
    assert rig.is_idle


def test_a_body_is_let_go_when_it_was_read(rig: JsonRig) -> None:
    asked: list[tuple[str, bytes | dict[str, Any]]] = [
        ("/v3/kv/put", {"key": of(b"k")}),
        ("/v3/kv/put", {"key": of(b"k"), "value": of(bytes(USUAL_SIZE_MAX))}),
        ("/v3/watch", {"create_request": {"key": of(b"k")}}),
        ("/v3/watch", b" " * 2 * USUAL_SIZE_MAX),
    ]
    for count, (path, body) in enumerate(asked, 1):
        said = rig.begin(path, body)
        rig.run(0.1)
        assert rig.lets_go == count
        said.addErrback(lambda failure: failure.trap(CancelledError))
        said.cancel()


def test_a_message_that_is_too_large_is_refused_as_by_grpc(rig: JsonRig) -> None:
    rig.loopback.ledger.bounds = type(rig.loopback.ledger.bounds)(message_size_max=1_000)
    status, told = rig.told("/v3/kv/put", {"key": of(b"k"), "value": of(bytes(1_000))})
    assert (status, told["code"]) == (429, 8)
    assert told["message"].startswith("grpc: received message larger than max (")


def test_bodies_are_bounded_by_the_message(rig: JsonRig) -> None:
    taking = rig.gateway.find(b"/v3/kv/put")
    assert taking is not None
    assert taking.body_size_max == BODY_SHARE * MESSAGE_SIZE_MAX


def test_a_large_answer_is_streamed_in_pieces(rig: JsonRig) -> None:
    count = HELD_SIZE_MAX // 1_000 + 2
    for position in range(count):
        put(rig, b"many/%d" % position, bytes(1_000))
    held = rig.ask("/v3/kv/range", {"key": of(b"many/"), "range_end": of(b"many0"), "limit": 30})
    assert isinstance(held, Answer)
    streamed = rig.ask("/v3/kv/range", {"key": of(b"many/"), "range_end": of(b"many0")})
    parts = rig.taken(streamed)
    assert len(parts) > 2
    assert max(map(len, parts)) < 2 * PIECE_SIZE
    assert len(json.loads(b"".join(parts))["kvs"]) == count
    assert rig.is_idle


def test_who_leaves_ends_the_call(rig: JsonRig) -> None:
    for position in range(HELD_SIZE_MAX // 1_000 + 1):
        put(rig, b"many/%d" % position, bytes(1_000))
    every = {"key": of(b"many/"), "range_end": of(b"many0")}
    streamed = rig.ask("/v3/kv/range", every)
    rig.taken(streamed, 1)
    streamed.parts.cancel()
    assert rig.is_idle
    for path, body in (("/v3/kv/range", every), ("/v3/kv/put", {"key": of(b"k")})):
        said = rig.begin(path, body)
        assert rig.loopback.ledger.calls
        said.addErrback(lambda failure: failure.trap(CancelledError))
        said.cancel()
        rig.run(0.1)
        assert rig.is_idle


# Streams.


def lines(parts: list[bytes]) -> list[Any]:
    return [json.loads(line) for line in b"".join(parts).splitlines()]


def test_a_watch_is_a_line_for_each_message(rig: JsonRig) -> None:
    put(rig, b"k", b"1")
    body = {"create_request": {"key": of(b"k"), "start_revision": "2"}}
    streamed = rig.ask("/v3/watch", body)
    created, first = lines(rig.taken(streamed, 2))
    assert created["result"]["created"] is True
    assert [one["kv"]["value"] for one in first["result"]["events"]] == [of(b"1")]
    later = streamed.parts.receive()
    put(rig, b"k", b"2")
    found = json.loads(rig.wait(later))
    assert found["result"]["events"][0]["kv"]["version"] == "2"
    streamed.parts.cancel()
    rig.run()
    assert rig.is_idle


def test_a_large_event_is_written_in_pieces(rig: JsonRig) -> None:
    value = bytes(3 * PIECE_SIZE)
    put(rig, b"a", value)
    put(rig, b"b", value)
    body = {"create_request": {"key": of(b"a"), "range_end": of(b"c"), "start_revision": 2}}
    streamed = rig.ask("/v3/watch", body)
    text = b""
    while text.count(b"\n") < 2:
        text += rig.taken(streamed, 1)[0]
    events = lines([text])[1]["result"]["events"]
    assert [b64decode(one["kv"]["value"]) for one in events] == [value, value]
    streamed.parts.cancel()


def test_a_watch_of_nothing_says_nothing_until_its_time_is_up(rig: JsonRig) -> None:
    for body in (b"", b"{bad", b'{"create_request":{"key":1}}'):
        said = rig.begin("/v3/watch", body, grpc_timeout="500m")
        rig.run(0.3)
        assert not said.called
        answer = rig.wait(said)
        assert answer.status == 504
        assert answer.body == b'{"error":{"code":4,"message":"context deadline exceeded"}}\n'
    assert rig.is_idle


def test_a_stream_that_fails_says_so_in_its_last_line(rig: JsonRig) -> None:
    body = {"create_request": {"key": of(b"k")}}
    streamed = rig.ask("/v3/watch", body, grpc_timeout="500m")
    told = lines(rig.taken(streamed))
    assert "result" in told[0]
    assert told[1] == {"error": {"code": 4, "message": "context deadline exceeded"}}
    assert rig.is_idle


def test_who_leaves_before_a_stream_says_anything_ends_it(rig: JsonRig) -> None:
    said = rig.begin("/v3/watch", b"")
    said.addErrback(lambda failure: failure.trap(CancelledError))
    said.cancel()
    rig.run()
    assert rig.is_idle


def test_renewals_are_a_line_each_and_the_stream_ends(rig: JsonRig) -> None:
    rig.told("/v3/lease/grant", {"ID": 7, "TTL": 60})
    streamed = rig.ask("/v3/lease/keepalive", b'{"ID":7} {"ID":"8"}{"ID":')
    told = [one["result"] for one in lines(rig.taken(streamed))]
    assert [(one["ID"], one.get("TTL")) for one in told] == [("7", "60"), ("8", None)]
    empty = rig.ask("/v3/lease/keepalive", b"")
    assert (empty.status, empty.body, empty.content_type) == (200, b"", b"")


# Heads, paths and verbs.


def test_what_a_call_is_told_of_its_caller(rig: JsonRig) -> None:
    callers: list[Caller] = []

    def put_seen(call: Call, message: bytes) -> bytes:
        callers.append(call.caller)
        assert call.metadata(b"authorization") == b"Bearer abc"
        raise StatusError(UNAUTHENTICATED, "etcdserver: invalid auth token")

    rig.methods.add_unary("/etcdserverpb.KV/Put", put_seen)
    answer = rig.ask("/v3/kv/put", b"{}", authorization="Bearer abc")
    (caller,) = callers
    assert (caller.address, caller.common_name, caller.token) == ("10.0.0.1", "", b"abc")
    assert (caller.remote, caller.local) == ("10.0.0.1:4000", "10.0.0.9:2379")
    assert answer.status == 401
    assert answer.fields == ((b"WWW-Authenticate", b"etcdserver: invalid auth token"),)


def test_a_timeout_that_is_none_is_refused(rig: JsonRig) -> None:
    found = rig.told("/v3/kv/put", b"{}", grpc_timeout="3x")
    assert found == (400, {"code": 3, "message": "invalid grpc-timeout: 3x"})
    late = rig.told("/v3/kv/put", b"{}", grpc_timeout="-1S")
    assert late == (504, {"code": 4, "message": "context deadline exceeded"})


def test_a_connection_is_one_client(rig: JsonRig) -> None:
    put(rig, b"a")
    put(rig, b"b")
    assert len(rig.gateway._channels) == 1
    rig.connection = cast(ITCPTransport, Connection())
    put(rig, b"c")
    assert len(rig.gateway._channels) <= 2


@pytest.mark.parametrize(
    ("verb", "path", "status", "code"),
    [
        (b"GET", b"/v3/kv/put", 501, 12),
        (b"HEAD", b"/v3beta/kv/put", 501, 12),
        (b"POST", b"/v3/kv/nope", 404, 5),
        (b"POST", b"/v3/kv/put/", 404, 5),
        (b"POST", b"/v3/", 404, 5),
    ],
)
def test_what_is_no_page_is_told_in_json(
    rig: JsonRig, verb: bytes, path: bytes, status: int, code: int
) -> None:
    answer = rig.gateway.refuse(verb, path)
    assert answer is not None
    assert (answer.status, json.loads(answer.body)["code"]) == (status, code)
    assert answer.is_guarded is False


@pytest.mark.parametrize(
    ("path", "location"),
    [
        (b"/v3", b"/v3/"),
        (b"//v3/kv/put", b"/v3/kv/put"),
        (b"/v3/kv/./x/../put", b"/v3/kv/put"),
        (b"/v3beta//kv/", b"/v3/kv/"),
    ],
)
def test_crooked_paths_are_straightened(rig: JsonRig, path: bytes, location: bytes) -> None:
    answer = rig.gateway.refuse(b"POST", path)
    assert answer is not None
    assert (answer.status, answer.fields) == (307, ((b"Location", location),))


@pytest.mark.parametrize("path", [b"/", b"/health", b"/v3alpha/kv/put", b"/v3betax", b"", b"/v2/x"])
def test_other_paths_are_none_of_its_business(rig: JsonRig, path: bytes) -> None:
    assert rig.gateway.refuse(b"POST", path) is None
    assert rig.gateway.find(path) is None


def test_old_and_quoted_paths_are_found(rig: JsonRig) -> None:
    found = rig.gateway.find(b"/v3/kv/put")
    assert found is rig.gateway.find(b"/v3beta/kv/put") is rig.gateway.find(b"/v3/kv/%70ut")


def test_every_method_has_its_route() -> None:
    methods = {f"/{service}/{method}" for _, service, method in GRPC_METHODS}
    routed = {route.method for route in ROUTES.values()}
    unrouted = {path for path in methods - routed if "Health" not in path}
    assert unrouted == {"/etcdserverpb.KV/RangeStream"}
    assert routed <= methods


def test_who_shows_no_certificate_is_not_barred(rig: JsonRig) -> None:
    for rig.refuses_names in (False, True):
        assert rig.gateway.bar(b"/v3/kv/range", rig.connection) is None
        assert rig.gateway.bar(b"/health", rig.connection) is None
