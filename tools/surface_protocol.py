"""What real etcd's binary says of its own protocol: services, methods, messages, fields, pages.

Go keeps the descriptors of all messages in the binary as they are, so that no source is needed.
Facts alone are taken: names, numbers, kinds, paths.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
)
from google.protobuf.message import DecodeError

FILES: Final = (
    "rpc.proto",
    "kv.proto",
    "auth.proto",
    "v3lock.proto",
    "v3election.proto",
    "grpc/health/v1/health.proto",
)
"""Those of what clients say; `etcdserver.proto` and its like are between members."""
SYNTAX: Final = 12
"""The last field of a file's descriptor here."""
FIELDS_MAX: Final = 10_000
ANSWER_S: Final = 10.0

CLIENT_PAGES: Final = (
    "/health",
    "/livez",
    "/livez/serializable_read",
    "/readyz",
    "/readyz/data_corruption",
    "/readyz/linearizable_read",
    "/readyz/non_learner",
    "/readyz/serializable_read",
    "/metrics",
    "/version",
    "/debug/vars",
    "/debug/pprof/",
    "/debug/pprof/allocs",
    "/debug/pprof/block",
    "/debug/pprof/cmdline",
    "/debug/pprof/goroutine",
    "/debug/pprof/heap",
    "/debug/pprof/mutex",
    "/debug/pprof/profile?seconds=1",
    "/debug/pprof/symbol",
    "/debug/pprof/threadcreate",
    "/debug/pprof/trace",
    "/debug/requests",
    "/debug/events",
    "/v2/keys",
    "/v2/members",
    "/",
)
PEER_PAGES: Final = (
    "/raft",
    "/raft/probing",
    "/raft/snapshot",
    "/raft/stream/message/1",
    "/raft/stream/msgapp/1",
    "/members",
    "/members/hashkv",
    "/members/promote/1",
    "/leases",
    "/leases/internal",
    "/downgrade/enabled",
    "/version",
    "/health",
    "/metrics",
)
"""What is asked of the real binary: those that it does not know are not recorded."""
_FILE: Final = re.compile(rb"\n(.)([\w/.-]+\.proto)\x12", re.DOTALL)


class Rpc(NamedTuple):
    """One method, and the messages that it takes and gives."""

    path: str
    kind: str
    request: str
    response: str
    routes: tuple[str, ...]
    """Its paths in the JSON gateway."""


def descriptors_of(binary: Path) -> dict[str, FileDescriptorProto]:
    """Return the files of `FILES` as the binary holds them."""
    data = binary.read_bytes()
    found: dict[str, FileDescriptorProto] = {}
    for match in _FILE.finditer(data):
        name = match[2].decode()
        if match[1][0] == len(match[2]) and name in FILES and name not in found:
            found[name] = _parsed(data, match.start())
    missing = set(FILES) - set(found)
    assert not missing, f"no descriptors of {missing}"
    return found


def rpcs_of(files: Iterable[FileDescriptorProto]) -> list[Rpc]:
    """Return every method, by path."""
    found = []
    for file in files:
        for service in file.service:
            for method in service.method:
                path = f"/{file.package}.{service.name}/{method.name}"
                request, response = method.input_type[1:], method.output_type[1:]
                found.append(Rpc(path, _kind(method), request, response, _routes(method)))
    return sorted(found)


def fields_of(files: Iterable[FileDescriptorProto]) -> dict[str, dict[str, int]]:
    """Return number by name of the fields of each message that a method takes or gives, or that
    stands in such a message."""
    files = list(files)
    messages = dict(_messages(files))
    wanted = [name for rpc in rpcs_of(files) for name in (rpc.request, rpc.response)]
    found: dict[str, dict[str, int]] = {}
    while wanted:
        name = wanted.pop()
        if name not in found and name in messages:
            fields = messages[name].field
            found[name] = {field.name: field.number for field in fields}
            wanted += [field.type_name[1:] for field in fields if field.type_name]
    return dict(sorted(found.items()))


def pages_of(url: str, paths: Iterable[str]) -> list[str]:
    """Return those of ``paths`` that somebody at ``url`` knows."""
    return [path for path in paths if _status(url + path) != 404]


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code


def _kind(method: MethodDescriptorProto) -> str:
    if method.client_streaming:
        return "bidi_stream" if method.server_streaming else "client_stream"
    return "server_stream" if method.server_streaming else "unary"


def _routes(method: MethodDescriptorProto) -> tuple[str, ...]:
    """Return the paths of its HTTP option, whose message is not known here: octets tell them."""
    octets = method.options.SerializeToString()
    return tuple(sorted(one.decode() for one in re.findall(rb"/v3[\w/-]+", octets)))


def _messages(
    files: Iterable[FileDescriptorProto],
) -> Iterator[tuple[str, DescriptorProto]]:
    for file in files:
        for message in file.message_type:
            yield from _within(file.package, message)


def _within(prefix: str, message: DescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
    name = f"{prefix}.{message.name}"
    yield name, message
    for inner in message.nested_type:
        yield from _within(name, inner)


def _parsed(data: bytes, start: int) -> FileDescriptorProto:
    """Return the descriptor that begins at ``start``: it ends behind its syntax."""
    at = start
    for _ in range(FIELDS_MAX):
        tag, at = _varint(data, at)
        assert tag & 7 == 2, "all fields of a file's descriptor have a length"
        size, at = _varint(data, at)
        at += size
        if tag >> 3 == SYNTAX:
            break
    try:
        return FileDescriptorProto.FromString(data[start:at])
    except DecodeError as error:
        raise AssertionError(f"no descriptor at {start:#x}") from error


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at
