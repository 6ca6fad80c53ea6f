"""Requests at the edges of the protocols, sent to two members, and all that comes back compared.

Calls that well-behaved clients never make, gzip in both directions, HTTP pages with their headers,
the names and labels of metrics, and history as watchers get it, response by response.  What may
differ stands with its reason in `UNLIKE_CALLS`, `UNLIKE_PAGES` and `UNLIKE_METRICS`.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from etcdtw.wire import etcdserverpb as pb
from tests.differential import operations as ops
from tests.support import wire_frames as wire
from tests.support.raw_exchange import Exchange, Fields, http1_exchange, http2_exchange
from tests.support.wire_client import ConnectionFailedError, WireClient, WireStream

Case = tuple[str, list[tuple[bytes, bytes]], list[bytes]]
"""What it is called, its header fields, its DATA frames."""

GZIP: Final = (b"grpc-encoding", b"gzip")
DEFLATE: Final = (b"grpc-encoding", b"deflate")
SNAPSHOT: Final = "/etcdserverpb.Maintenance/Snapshot"
READ: Final = pb.RangeRequest(key=b"k", serializable=True).SerializeToString()
BROKEN: Final = b"\xff\xff"
HISTORY_REVISIONS: Final = 2_300
HISTORY_TIMEOUT_S: Final = 20.0

UNLIKE_CALLS: Final = {
    "ends with its header": "etcd lets it wait for its deadline",
    "of another content type": "pages are served over HTTP/2 without TLS as well",
}
UNLIKE_PAGES: Final = {
    "/v3/kv/range": "there is no JSON gateway yet",
    "//health": "Go redirects to the clean path",
    "/health/../version": "Go redirects to the clean path",
}
UNLIKE_METRICS: Final = re.compile(
    r"go_|etcd_grpc_proxy_|etcdtw_|etcd_debugging_|etcd_snap_fsync_duration_seconds|"
    r"etcd_network_server_stream_failures_total"
)
"""Go's own, the proxy's, ours, debugging ones, of the old store, and a failure that was not yet."""


def message(octets: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(octets).to_bytes(4, "big") + octets


def packed(octets: bytes) -> bytes:
    return message(gzip.compress(octets), 1)


def call(
    path: str, *more: tuple[bytes, bytes], without: bytes = b"", **changed: bytes
) -> list[tuple[bytes, bytes]]:
    """Return the fields of a call; ``changed`` names one by its word."""
    fields = [
        (b":method", changed.get("method", b"POST")),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"127.0.0.1:2379"),
        (b"content-type", changed.get("content_type", b"application/grpc")),
        (b"te", b"trailers"),
    ]
    return [field for field in fields if field[0] != without] + list(more)


def gzip_calls() -> list[Case]:
    """Return the calls that are in gzip's form, or should be."""
    small = pb.PutRequest(key=b"k", value=b"v" * 1000).SerializeToString()
    huge = pb.PutRequest(key=b"k", value=b"v" * 3_000_000).SerializeToString()
    renewal = pb.LeaseKeepAliveRequest(ID=5).SerializeToString()
    file = gzip.compress(READ)
    return [
        ("gzip", call(ops.RANGE, GZIP), [packed(READ)]),
        ("gzip, message as it is", call(ops.RANGE, GZIP), [message(READ)]),
        ("gzip, empty file", call(ops.RANGE, GZIP), [message(b"", 1)]),
        ("gzip, garbage", call(ops.RANGE, GZIP), [message(b"garbage", 1)]),
        ("gzip, cut short", call(ops.RANGE, GZIP), [message(file[:-6], 1)]),
        ("gzip, wrong checksum", call(ops.RANGE, GZIP), [message(file[:-8] + bytes(8), 1)]),
        ("gzip, garbage behind", call(ops.RANGE, GZIP), [message(file + b"xx", 1)]),
        ("gzip, two members", call(ops.RANGE, GZIP), [message(file + gzip.compress(b""), 1)]),
        ("gzip, zlib's form", call(ops.RANGE, GZIP), [message(zlib.compress(READ), 1)]),
        ("gzip, put", call(ops.PUT, GZIP), [packed(small)]),
        ("gzip, too large inside", call(ops.PUT, GZIP), [packed(huge)]),
        ("gzip, no message inside", call(ops.RANGE, GZIP), [packed(BROKEN)]),
        ("gzip, refused", call(ops.RANGE, GZIP), [packed(b"")]),
        ("gzip, stream", call(ops.RANGE_STREAM, GZIP), [packed(READ)]),
        ("gzip, two requests", call(ops.RANGE_STREAM, GZIP), [packed(READ) * 2]),
        ("gzip, renewal", call(ops.KEEP_ALIVE, GZIP), [packed(renewal)]),
        (
            "gzip, accepted only",
            call(ops.RANGE, (b"grpc-accept-encoding", b"gzip")),
            [message(READ)],
        ),
        ("gzip, unknown method", call("/a.B/C", GZIP), [packed(READ)]),
    ]


def odd_calls() -> list[Case]:
    """Return the calls that are wrong in other ways, or look so."""
    return [
        ("deflate", call(ops.RANGE, DEFLATE), [message(zlib.compress(READ), 1)]),
        ("deflate, unknown method", call("/a.B/C", DEFLATE), [message(READ)]),
        ("compressed without encoding", call(ops.RANGE), [message(READ, 1)]),
        ("unknown flag", call(ops.RANGE), [message(READ, 2)]),
        ("ends with its header", call(ops.RANGE), []),
        ("no message", call(ops.RANGE), [b""]),
        ("no message, gzip", call(ops.RANGE, GZIP), [b""]),
        ("two messages", call(ops.RANGE), [message(READ) * 2]),
        ("two messages, two frames", call(ops.RANGE), [message(READ), message(READ)]),
        ("a message and a half", call(ops.RANGE), [message(READ) + b"\0\0"]),
        ("half a message", call(ops.RANGE), [message(READ)[:-1]]),
        ("half a prefix", call(ops.RANGE), [b"\0\0"]),
        ("broken message", call(ops.RANGE), [message(BROKEN)]),
        ("broken put", call(ops.PUT), [message(BROKEN)]),
        ("broken txn", call(ops.TXN), [message(BROKEN)]),
        ("too large", call(ops.PUT), [message(b"")[:1] + (3 << 20).to_bytes(4, "big")]),
        ("stream, no message", call(ops.RANGE_STREAM), [b""]),
        ("stream, two messages", call(ops.RANGE_STREAM), [message(READ) * 2]),
        ("stream, half a prefix", call(ops.RANGE_STREAM), [b"\0\0\0"]),
        ("stream, half a message", call(ops.RANGE_STREAM), [message(READ)[:-1]]),
        ("stream, broken message", call(ops.RANGE_STREAM), [message(BROKEN)]),
        ("snapshot, half a prefix", call(SNAPSHOT), [b"\0\0\0"]),
        ("renewal, none", call(ops.KEEP_ALIVE), [b""]),
        ("renewal, half a prefix", call(ops.KEEP_ALIVE), [b"\0\0\0"]),
        ("renewal, half a message", call(ops.KEEP_ALIVE), [b"\0\0\0\0\x09x"]),
        ("renewal, broken message", call(ops.KEEP_ALIVE), [message(BROKEN)]),
        ("watch, half a message", call(ops.WATCH), [b"\0\0\0\0\x09x"]),
        ("watch, broken message", call(ops.WATCH), [message(BROKEN)]),
        ("path without a slash", call("etcdserverpb.KV/Range"), [message(READ)]),
        ("path of one word", call("Range"), [message(READ)]),
        ("no path", call(""), [message(READ)]),
        ("path of one part", call("/Range"), [message(READ)]),
        ("unknown service", call("/a.B/C"), [message(READ)]),
        ("unknown method", call("/etcdserverpb.KV/C"), [message(READ)]),
        ("slash at the end", call("/etcdserverpb.KV/Range/"), [message(READ)]),
        ("two slashes", call("//etcdserverpb.KV/Range"), [message(READ)]),
        ("query", call("/etcdserverpb.KV/Range?x"), [message(READ)]),
        ("whole URL", call("http://x/etcdserverpb.KV/Range"), [message(READ)]),
        ("GET", call(ops.RANGE, method=b"GET"), [b""]),
        ("GET of nothing", call("/a.B/C", method=b"GET"), [b""]),
        ("of another content type", call(ops.RANGE, content_type=b"text/plain"), [message(READ)]),
        *[
            (f"content type {kind!r}", call(ops.RANGE, content_type=kind), [message(READ)])
            for kind in (b"application/grpc+proto", b"application/grpc;x=y")
        ],
        ("no te", call(ops.RANGE, without=b"te"), [message(READ)]),
        ("no authority", call(ops.RANGE, without=b":authority"), [message(READ)]),
        ("bad timeout", call(ops.RANGE, (b"grpc-timeout", b"1x")), [message(READ)]),
        ("no time", call(ops.RANGE, (b"grpc-timeout", b"0n")), [message(READ)]),
    ]


def shown(exchange: Exchange, path: bytes) -> tuple[Any, ...]:
    """Return what is compared of an exchange over gRPC: messages without who answered them."""
    fields = dict(exchange.head)
    body: Any = exchange.body
    if fields.get("content-type", "").startswith("application/grpc"):
        body = [(flag, _stripped(octets, path)) for flag, octets in _messages(exchange.body)]
    # Some builds of Go's protobuf say it with a blank that breaks no line.
    trailers = [(name, value.replace("%C2%A0", " ")) for name, value in exchange.trailers]
    head = [(name, value.replace("%C2%A0", " ")) for name, value in exchange.head]
    return head, body, trailers, exchange.end


def _messages(body: bytes) -> Iterator[tuple[int, bytes]]:
    while len(body) >= 5:
        size = int.from_bytes(body[1:5], "big")
        octets = body[5 : 5 + size]
        yield body[0], gzip.decompress(octets) if body[0] else octets
        body = body[5 + size :]


def _stripped(octets: bytes, path: bytes) -> bytes:
    kind = ops.RESPONSES.get(path.decode())
    if kind is None:
        return b""
    response: Any = kind.FromString(octets)
    answer = response.range_response if path == ops.RANGE_STREAM.encode() else response
    answer.ClearField("header")
    return bytes(response.SerializeToString(deterministic=True))


def call_differences(left: str, right: str) -> list[str]:
    """Make every call; return those that were answered in different ways.

    None changes anything but the key ``k``.
    """
    found = []
    for name, fields, frames in (*gzip_calls(), *odd_calls()):
        if name in UNLIKE_CALLS:
            continue
        pieces = [
            frame[start : start + wire.FRAME_SIZE]
            for frame in frames
            for start in range(0, max(len(frame), 1), wire.FRAME_SIZE)
        ]
        answers = [
            shown(http2_exchange(endpoint, fields, *pieces), dict(fields)[b":path"])
            for endpoint in (left, right)
        ]
        if answers[0] != answers[1]:
            found.append(f"call: {name}\nLEFT: {answers[0]}\nRIGHT: {answers[1]}")
    return found


# Pages.

PAGES: Final = (
    *("/health", "/health?serializable=true", "/health?exclude=NOSPACE", "/health/"),
    *("/livez", "/livez/", "/livez?verbose", "/livez?exclude=serializable_read"),
    *("/livez/serializable_read", "/livez/serializable_read?verbose", "/livez/nope"),
    *("/readyz", "/readyz/", "/readyz/data_corruption", "/readyz/linearizable_read"),
    *("/readyz/non_learner?verbose", "/readyz/nope", "/readyz?exclude=nope"),
    *("/version", "/version/", "/metrics", "/metrics/", "/debug/vars", "/debug/vars/"),
    *("/debug/requests", "/debug/pprof/", "/config/local/log", "/", "/v2/keys", "/nope"),
    *("/members", "/leases", "/healthz", *UNLIKE_PAGES),
)
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
CHANGING: Final = ("/metrics", "/debug/vars", "/version")
"""Pages that tell of the program itself: status and headers are compared, not the body."""


def page_differences(left: str, right: str) -> list[str]:
    """Ask for every page by every method; return what came back in different ways."""
    found = []
    for path in PAGES:
        if path in UNLIKE_PAGES:
            continue
        for method in METHODS:
            answers = []
            for endpoint in (left, right):
                request = (
                    f"{method} {path} HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n"
                )
                answers.append(_page(http1_exchange(endpoint, request.encode()), path))
            if answers[0] != answers[1]:
                found.append(f"page: {method} {path}\nLEFT: {answers[0]}\nRIGHT: {answers[1]}")
    return found


def _page(exchange: Exchange, path: str) -> tuple[str, Fields, bytes]:
    """Return the status, the headers in order of their names, and the body."""
    is_told = path not in CHANGING or "200" not in exchange.head[0][1]
    # Go sends a page that it has not measured in chunks.
    unlike = {"Date"} if is_told else {"Date", "Content-Length", "Transfer-Encoding"}
    headers = sorted((name, value) for name, value in exchange.head[1:] if name not in unlike)
    return exchange.head[0][1], headers, exchange.body if is_told else b""


# Metrics.


def metric_differences(left: str, right: str) -> list[str]:
    """Compare names, kinds and labels, in their order, of the metrics that both must have."""
    for endpoint in (left, right):
        client = WireClient(endpoint)
        client.call(ops.RANGE, READ)
        client.close()
    one, other = (_metrics(endpoint) for endpoint in (left, right))
    found = []
    for name in sorted(one.keys() | other.keys()):
        if UNLIKE_METRICS.match(name):
            continue
        if one.get(name) != other.get(name):
            found.append(f"metric: {name}\nLEFT: {one.get(name)}\nRIGHT: {other.get(name)}")
    return found


def _metrics(endpoint: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    page = http1_exchange(endpoint, b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n").body.decode()
    kinds = dict(line.split(" ")[2:4] for line in page.splitlines() if line.startswith("# TYPE"))
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for line in page.splitlines():
        if line and not line.startswith("#"):
            parsed = re.match(r"([^{ ]+)(?:\{(.*)\})? ", line)
            assert parsed is not None, line
            base = re.sub(r"_(bucket|sum|count)$", "", parsed[1])
            name = base if base in kinds else parsed[1]
            labels = tuple(re.findall(r'(\w+)="', parsed[2] or ""))
            found[parsed[1]] = (kinds[name], labels)
    return found


# History.


def history_requests() -> list[Any]:
    """Return the watches whose history is compared response by response."""
    everything: dict[str, Any] = {"key": b"h", "range_end": b"i"}
    return [
        pb.WatchCreateRequest(start_revision=2, **everything),
        pb.WatchCreateRequest(start_revision=2, fragment=True, **everything),
        pb.WatchCreateRequest(start_revision=2, prev_kv=True, key=b"h/1"),
        pb.WatchCreateRequest(start_revision=2, key=b"h/rare"),
        pb.WatchCreateRequest(start_revision=2, filters=[0], **everything),
        pb.WatchCreateRequest(start_revision=2, filters=[1], **everything),
        pb.WatchCreateRequest(start_revision=500, **everything),
    ]


def write_history(client: WireClient) -> None:
    """Put and delete in many revisions, some of several keys, some large."""
    requests: list[tuple[str, Any]] = []
    for i in range(HISTORY_REVISIONS):
        value = b"v" * (60_000 if i % 50 == 7 else 20)
        if i % 5 == 3:
            requests.append((ops.DELETE, pb.DeleteRangeRequest(key=b"h/%d" % (i % 7))))
        elif i % 11 == 0:
            puts = [pb.PutRequest(key=b"h/%d" % key, value=value) for key in range(3)]
            txn = pb.TxnRequest(success=[pb.RequestOp(request_put=put) for put in puts])
            requests.append((ops.TXN, txn))
        else:
            key = b"h/rare" if i % 700 == 1 else b"h/%d" % (i % 7)
            requests.append((ops.PUT, pb.PutRequest(key=key, value=value)))
    for path, request in requests:
        assert client.call(path, request.SerializeToString()).code == 0


def history_differences(left: str, right: str) -> list[str]:
    """Let both write the same, and compare the responses in which watchers get it."""
    clients = [WireClient(endpoint) for endpoint in (left, right)]
    for client in clients:
        write_history(client)
    found = []
    for request in history_requests():
        shapes = [_history(client, request) for client in clients]
        if shapes[0] != shapes[1]:
            found.append(f"history: {request}\nLEFT: {shapes[0]}\nRIGHT: {shapes[1]}")
    for client in clients:
        client.close()
    return found


def _history(client: WireClient, request: Any) -> list[tuple[int, bool, tuple[int, ...]]]:
    """Return (events, whether it is a fragment, the revisions' ends) of each response."""
    stream = client.open(ops.WATCH)
    client.send(stream, pb.WatchRequest(create_request=request).SerializeToString())
    shapes: list[tuple[int, bool, tuple[int, ...]]] = []
    for octets in _until_quiet(client, stream):
        response: Any = pb.WatchResponse.FromString(octets)
        events = response.events
        ends = (events[0].kv.mod_revision, events[-1].kv.mod_revision) if events else ()
        shapes.append((len(events), response.fragment, ends))
    client.reset(stream)
    return shapes


def _until_quiet(client: WireClient, stream: WireStream) -> list[bytes]:
    """Read until nothing has come for longer than etcd lets watchers wait for history."""
    messages: list[bytes] = []
    while client.poll(0.6):
        messages += stream.take_messages()
        if stream.is_ended:
            raise ConnectionFailedError(f"{client.endpoint}: {stream.text}")
    return messages


CHECKS: Final[tuple[Callable[[str, str], list[str]], ...]] = (
    call_differences,
    page_differences,
    history_differences,
    metric_differences,
)


def all_differences(left: str, right: str) -> list[str]:
    """Return everything in which two fresh members differ at the boundary."""
    return [text for check in CHECKS for text in check(left, right)]
