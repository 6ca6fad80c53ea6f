"""What changes things and looks at them, request by request: the sequence of `json_pages`."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

WAIT: Final = {"Grpc-Timeout": "400m"}
"""How long a stream is listened to."""


class Ask(NamedTuple):
    """One request."""

    path: str
    body: bytes
    verb: str = "POST"
    fields: dict[str, str] = {}  # noqa: RUF012 - never written to
    user: str = ""
    """Who asks, by a token of his; empty: nobody."""


def of(text: str) -> str:
    return b64encode(text.encode()).decode()


def call(path: str, *messages: Any, user: str = "") -> Ask:
    """Return a request; what it streams is listened to for a while."""
    body = "".join(json.dumps(one) for one in messages).encode()
    return Ask(f"/v3/{path}", body, fields=WAIT if path in STREAMS else {}, user=user)


STREAMS: Final = ("watch", "election/observe")
A: Final = of("a")
B: Final = of("b")


def keys() -> Iterator[Ask]:
    yield Ask("/v3/kv/range", b"")
    yield Ask("/v3/kv/range", b"  \r\n\t ")
    yield call("kv/put", {"key": A, "value": of("1")})
    yield call("kv/put", {"key": A, "value": of("2"), "prev_kv": True, "unknown": [{"x": None}]})
    yield call("kv/put", {"key": A, "value": of("3"), "prevKv": True})
    yield call("kv/put", {"key": B, "ignore_value": True})
    yield call("kv/put", {"key": B, "lease": "9"})
    yield call("kv/put", {"key": "AAH/+g==", "value": "-_8"})
    yield call("kv/range", {"key": A})
    yield call("kv/range", {"key": "AA", "range_end": "AA", "limit": 2, "sort_order": "DESCEND"})
    yield call("kv/range", {"key": "AA", "rangeEnd": "AA", "sort_target": 3, "keysOnly": True})
    yield call("kv/range", {"key": A, "sort_order": "SIDEWAYS", "sort_target": "VALUE"})
    yield call("kv/range", {"key": A, "sort_order": 9})
    yield call("kv/range", {"key": A, "revision": "1e0"})
    yield call("kv/range", {"key": A, "revision": 100.0})
    yield call("kv/range", {"key": A, "count_only": True, "serializable": True})
    yield Ask("/v3/kv/range", b'{"key":"%b"} and more' % A.encode())
    yield Ask("/v3/kv/range", b'{"key":"\\u0059\\u0051=="}')


def txns() -> Iterator[Ask]:
    compare = {"key": A, "target": "VALUE", "result": "EQUAL", "value": of("3")}
    nested = {"request_txn": {"success": [{"request_range": {"key": B}}], "failure": [{}]}}
    yield call(
        "kv/txn",
        {
            "compare": [compare, {"key": B, "version": "0", "target": 0, "result": 0}],
            "success": [
                {"requestPut": {"key": B, "value": of("t")}},
                {"request_range": {"key": A}},
                {"request_delete_range": {"key": of("none"), "prev_kv": True}},
            ],
            "failure": [nested],
        },
    )
    yield call("kv/txn", {"compare": [compare, {"key": B, "target": "VERSION", "version": 0}]})
    yield call("kv/txn", {"compare": [{**compare, "value": A}], "failure": [nested]})
    yield call("kv/txn", {})
    yield call("kv/txn", {"success": [{"request_put": {}}]})
    yield call("kv/txn", {"success": [{"request_range": {"key": A}}] * 129})


def leases_and_watches() -> Iterator[Ask]:
    yield call("lease/grant", {"ID": "7", "TTL": "600"})
    yield call("lease/grant", {"ID": 7, "TTL": 600})
    yield call("kv/put", {"key": B, "lease": 7})
    yield call("lease/timetolive", {"ID": 7, "keys": True})
    yield call("kv/lease/timetolive", {"ID": "8"})
    yield call("lease/leases", {})
    yield call("kv/lease/leases", {})
    yield call("lease/keepalive", {"ID": 7}, {"ID": "8"})
    yield Ask("/v3/lease/keepalive", b'{"ID":7}{"ID":}{"ID":8}')
    yield Ask("/v3/lease/keepalive", b"")
    yield call("watch", {"create_request": {"key": A, "start_revision": 1}})
    yield call(
        "watch",
        {"create_request": {"key": "AA", "range_end": "AA", "start_revision": 1, "prev_kv": True}},
        {"createRequest": {"key": B, "filters": ["NOPUT", 1, "NOTHING"], "watch_id": "5"}},
        {"cancel_request": {"watch_id": 5}},
        {"create_request": {"key": B, "watch_id": 0, "start_revision": "-1"}},
    )
    yield call("watch", {})
    yield Ask("/v3/watch", b"", fields=WAIT)


def locks() -> Iterator[Ask]:
    yield call("lock/lock", {"name": of("l"), "lease": 7})
    yield call("lock/lock", {"name": of("l"), "lease": 7})
    yield call("lock/lock", {"name": of("l"), "lease": 8})
    yield call("lock/unlock", {"key": of("l/7")})
    yield call("lock/unlock", {"key": of("l/7")})
    yield call("lock/unlock", {})
    yield call("election/leader", {"name": of("e")})
    yield call("election/campaign", {"name": of("e"), "lease": "7", "value": of("v")})
    yield call("election/campaign", {"name": of("e"), "lease": "8", "value": of("v")})
    yield call("election/leader", {"name": of("e")})
    yield call("election/observe", {"name": of("e")})
    yield call("election/observe", {"name": of("none")})
    yield call("election/proclaim", {})
    yield call("election/proclaim", {"leader": {"name": of("e"), "key": of("e/7"), "rev": 1}})
    yield call("election/resign", {})
    yield call("election/resign", {"leader": {"key": of("e/7"), "rev": "1", "lease": 7}})
    yield call("lease/revoke", {"ID": "7"})
    yield call("lease/revoke", {"ID": "7"})
    yield call("kv/lease/revoke", {})


def history() -> Iterator[Ask]:
    yield call("kv/deleterange", {"key": A, "prev_kv": True})
    yield call("kv/deleterange", {})
    yield call("kv/compaction", {"revision": "3", "physical": True})
    yield call("kv/compaction", {"revision": "3"})
    yield call("kv/compaction", {"revision": 10**6})
    yield call("kv/range", {"key": A, "revision": 2})
    yield call("watch", {"create_request": {"key": A, "start_revision": 1}})


def members() -> Iterator[Ask]:
    yield call("cluster/member/list", {})
    yield call("cluster/member/list", {"linearizable": True})
    yield call("cluster/member/add", {"peerURLs": ["not a url"]})
    yield call("cluster/member/remove", {"ID": "1"})
    yield call("cluster/member/update", {"ID": "1", "peerURLs": ["http://127.0.0.1:1"]})
    yield call("cluster/member/promote", {"ID": "1"})
    yield call("maintenance/alarm", {})
    yield call("maintenance/alarm", {"action": "ACTIVATE", "memberID": "1", "alarm": "NOSPACE"})
    yield call("maintenance/alarm", {"action": "GET", "alarm": 0})
    yield call("kv/put", {"key": A})
    yield call("maintenance/alarm", {"action": "DEACTIVATE", "memberID": 1, "alarm": 1})
    yield call("maintenance/status", {})
    yield call("maintenance/defragment", {})
    yield call("maintenance/hash", {})
    yield call("maintenance/hashkv", {"revision": 0})
    yield call("maintenance/hashkv", {"revision": 10**6})
    yield call("maintenance/transfer-leadership", {"targetID": "1"})
    yield call("maintenance/downgrade", {"action": "VALIDATE", "version": "x"})
    yield call("maintenance/downgrade", {"action": "VALIDATE", "version": "3.5"})
    yield call("maintenance/downgrade", {"action": "CANCEL"})


def sizes() -> Iterator[Ask]:
    for count in (100, 3_000):
        yield call("kv/put", {"key": of(f"big{count}"), "value": "QUJD" * count})
        yield call("kv/range", {"key": of(f"big{count}")})
    for size in (1_400_000, 1_700_000, 2_300_000):
        yield call("kv/put", {"key": of("large"), "value": b64encode(bytes(size)).decode()})
    yield call("kv/range", {"key": of("large")})
    for position in range(100):
        yield call("kv/put", {"key": of(f"many/{position}"), "value": "QUJD" * 1_000})
    yield call("kv/range", {"key": of("many/"), "range_end": of("many0")})


def sequence() -> Iterator[Ask]:
    """Yield all of them, in the order in which they count upon each other."""
    yield from keys()
    yield from txns()
    yield from leases_and_watches()
    yield from locks()
    yield from history()
    yield from members()
    yield from sizes()
