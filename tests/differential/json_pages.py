"""The JSON gateway of two members, asked the same: every route, well and badly.

``python -m tests.differential.json_pages HOST:PORT HOST:PORT`` compares two fresh members.
Bodies are compared as JSON: Go's own spacing is not stable.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final, NamedTuple

from etcdtw.gateway.routes import ROUTES, Route
from etcdtw.gateway.transcoding.exact import ReadingError, read_value
from etcdtw.gateway.transcoding.scanning import NotJsonError
from etcdtw.gateway.transcoding.tables import BOOL, BYTES, ENUM, MESSAGE, STRING, Field
from etcdtw.gateway.turns import whole
from etcdtw.grpc.call import UNARY
from tests.differential.json_sequence import WAIT, Ask, of, sequence
from tests.differential.json_users import PASSWORD, users

TIMEOUT_S: Final = 10.0
OF_THE_MEMBER: Final = {
    *("cluster_id", "member_id", "raft_term", "raftTerm", "raftIndex", "raftAppliedIndex"),
    *("leader", "dbSize", "dbSizeInUse", "hash", "compact_revision_hash", "members", "blob", "TTL"),
    "token",
}
"""What names or measures the member that answers."""
FIELDS: Final = (
    "content-type",
    "grpc-metadata-content-type",
    "x-content-type-options",
    "www-authenticate",
    "location",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
)
"""What of the head is compared."""
NO_SPACE: Final = re.compile("proto:[ \xa0]")

LATE: Final = "context deadline exceeded"
CUT_OFF: Final = "stream terminated by RST_STREAM with error code: CANCEL"
"""What real etcd says at times instead of `LATE`."""


class Heard(NamedTuple):
    """What one member said, as it is compared."""

    status: int
    fields: dict[str, str]
    body: list[Any]


def ask(endpoint: str, asked: Ask) -> Heard:
    sent = asked.fields
    if asked.user:
        sent = {**sent, "Authorization": token(endpoint, asked.user)}
    connection = http.client.HTTPConnection(endpoint, timeout=TIMEOUT_S)
    with closing(connection):
        connection.request(asked.verb, asked.path, asked.body, sent)
        answer = connection.getresponse()
        body = answer.read()
    fields = {name: value for name in FIELDS if (value := answer.getheader(name)) is not None}
    return Heard(answer.status, fields, shown(body))


def token(endpoint: str, user: str) -> str:
    connection = http.client.HTTPConnection(endpoint, timeout=TIMEOUT_S)
    with closing(connection):
        body = json.dumps({"name": user, "password": PASSWORD})
        connection.request("POST", "/v3/auth/authenticate", body)
        return str(json.loads(connection.getresponse().read())["token"])


def shown(body: bytes) -> list[Any]:
    """Return the lines of a body, parsed, without what names the member."""
    lines = []
    for line in body.decode("utf-8", "replace").splitlines():
        try:
            lines.append(normal(json.loads(line)))
        except ValueError:
            lines.append(line)
    return lines


def normal(value: Any) -> Any:
    if isinstance(value, list):
        return [normal(one) for one in value]
    if isinstance(value, dict):
        return {name: "*" if name in OF_THE_MEMBER else normal(one) for name, one in value.items()}
    if value == CUT_OFF:
        return LATE
    return NO_SPACE.sub("proto: ", value) if isinstance(value, str) else value


# What is asked.

NO_JSON: Final[tuple[bytes, ...]] = (
    b"{",
    b'{"',
    b'{"a',
    b'{"a":',
    b"x",
    b"]",
    b"[1,]",
    b"{,}",
    b'{"a":1,}',
    b'{"a" 1}',
    b'{"a":1 "b"}',
    b"{'a':1}",
    b'{"a":trux}',
    b'{"a":nulx}',
    b'{"a":01}',
    b'{"a":-}',
    b'{"a":-x}',
    b'{"a":1.}',
    b'{"a":1.x}',
    b'{"a":1e+}',
    b'{"a":.5}',
    b'{"a":+1}',
    b'{"a":NaN}',
    b'{"a":"\\x"}',
    b'{"a":"\\u12g4"}',
    b'{"a":"\x01"}',
    b'{"a":"\n"}',
    b"\xef\xbb\xbf{}",
    b"{\xff}",
    b"\x00",
    b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
)
"""Bodies that are no JSON."""
NO_MESSAGE: Final[tuple[bytes, ...]] = (
    b"null",
    b"5",
    b"-0",
    b'"text"',
    b"[]",
    b"true",
    b'{"a":"\xff"}',
    b'{"a":"\\ud800"}',
    b'{"a":"\\ud800\\u0041"}',
    b'{"a":"\\udc00\\ud800xxxxxx"}',
    b'{"\\ud800":1,      "b":2}',
    b'  \n {"a":\n   "\xc3\x28"}',
)
"""JSON that is no message, of whatever kind."""


def wrong_values(field: Field) -> Iterator[bytes]:
    """Yield JSON that a field of this kind does not take."""
    if field.is_list:
        yield from (b"{}", b'"x"', b"5", b"[null]", b"[[]]")
    elif field.kind == MESSAGE:
        yield from (b"[]", b'"x"', b"5", b"false")
    elif field.kind == BOOL:
        yield from (b"1", b'"true"', b"{}", b"[]")
    elif field.kind in (BYTES, STRING):
        yield from (b"1", b"true", b"{}", b"[]")
        if field.kind == BYTES:
            yield from (b'"*"', b'"YQ==="', b'"Y"', b'"YQ=a"', b'"_+=="', b'"\\u00fc"', b'"=YQ="')
    else:
        yield from (b"1.5", b"true", b"{}", b"[]", b"1e30", b"99999999999999999999")
        if field.kind != ENUM:
            yield from (b'""', b'" 1"', b'"1 "', b'"x"', b'"1.5"', b'"\\"1\\""', b'"0x1"', b'"01"')


def bad_bodies(route: Route) -> Iterator[bytes]:
    """Yield bodies that this route refuses."""
    yield from NO_JSON
    yield from NO_MESSAGE
    for name, field in route.request.by_name.items():
        quoted = json.dumps(name).encode()
        for value in wrong_values(field):
            yield b"{%b:%b}" % (quoted, value)
        yield b"{%b:null,\n %b:null}" % (quoted, quoted)
        if field.oneof is not None:
            others = [one for one in route.request.by_name.values() if one.oneof == field.oneof]
            pair = (others[0].json_name.encode(), others[-1].json_name.encode())
            yield b'{"%b":{},"%b":{}}' % pair


def is_message(route: Route, body: bytes) -> bool:
    """Whether a route of ours takes the body: then it is not asked for nothing."""
    try:
        whole(read_value(route.request, body, 0))
    except (NotJsonError, ReadingError, AssertionError):
        return False
    return True


def refused() -> Iterator[Ask]:
    """Yield what no route takes.  Streams that take many messages say nothing of such."""
    for path, route in ROUTES.items():
        fields = WAIT if route.kind != UNARY else {}
        bodies = list(dict.fromkeys(bad_bodies(route)))
        if path in (b"/v3/watch", b"/v3/lease/keepalive"):
            bodies = bodies[:: len(bodies) // 3]
        for body in bodies:
            if not is_message(route, body):
                yield Ask(path.decode(), body, fields=fields)


def verbs_and_paths() -> Iterator[Ask]:
    for path in ROUTES:
        for verb in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "BREW"):
            yield Ask(path.decode(), b"", verb)
    for other in (
        "/v3/",
        "/v3",
        "/v3/kv",
        "/v3/kv/",
        "/v3/kv/range/",
        "/v3/kv/nope",
        "/v3/kv/RANGE",
        "/v3alpha/kv/range",
        "/v3beta/kv/nope",
        "/v3betax",
        "/v2/keys",
        "//v3/kv/range",
        "/v3//kv/range",
        "/v3/./kv/range",
        "/v3/kv/../kv/range",
        "/v3/kv/range:go",
    ):
        yield Ask(other, b"{}")
    key = json.dumps({"key": of("a")}).encode()
    yield Ask("/v3/kv/range?key=x", key)
    yield Ask("/v3/kv/ran%67e", key)
    yield Ask("/v3beta/kv/range", key)
    yield Ask("/v3beta/kv/range", b"", "GET")


def heads() -> Iterator[Ask]:
    key = json.dumps({"key": of("a")}).encode()
    for timeout in ("1S", "5M", "-1S", "0n", "3x", "S", "1", "", "x1S", "1.5S", "10000000000000u"):
        yield Ask("/v3/kv/range", key, fields={"Grpc-Timeout": timeout})
    for fields in (
        {"Origin": "http://a.example"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Accept": "text/html"},
        {"Grpc-Metadata-Hasleader": "true"},
        {"Authorization": "Bearer x"},
        {"Grpc-Metadata-Token": "x"},
    ):
        yield Ask("/v3/kv/range", key, fields=fields)


GROUPS: Final = {
    "sequence": sequence,
    "verbs": verbs_and_paths,
    "heads": heads,
    "refused": refused,
    "users": users,
}


def differences(left: str, right: str, group: str, step: int = 1) -> tuple[int, list[str]]:
    """Return how many requests of a group were compared, and where the members differ."""
    found = []
    count = 0
    for count, asked in enumerate(GROUPS[group](), 1):
        if count % step:
            continue
        heard, theirs = ask(right, asked), ask(left, asked)
        if heard != theirs:
            body = asked.body[:200].decode("utf-8", "backslashreplace")
            found.append(
                f"{asked.verb} {asked.path} {body} {asked.fields} {asked.user}\n"
                f"  judge: {str(theirs)[:1500]}\n  ours:  {str(heard)[:1500]}"
            )
    return count // step, found


def main() -> int:
    """Compare the members at two endpoints."""
    left, right = sys.argv[1:3]
    groups = sys.argv[3:] or list(GROUPS)
    is_different = False
    for group in groups:
        count, found = differences(left, right, group)
        print(f"{group}: {count} requests, {len(found)} differences")
        for one in found:
            print(one)
        is_different = is_different or bool(found)
    return int(is_different)


if __name__ == "__main__":
    sys.exit(main())
