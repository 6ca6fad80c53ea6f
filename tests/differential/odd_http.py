"""Odd requests of HTTP/1.x to two members, and where their answers differ.

``python -m tests.differential.odd_http HOST:PORT HOST:PORT`` compares two members.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from tests.differential.json_pages import FIELDS, shown
from tests.differential.odd_requests import GET, Odd, everything

AT_ONCE: Final = 24
"""Connections to a member."""
CONNECT_S: Final = 10.0
FIRST_S: Final = 1.0
QUIET_S: Final = 0.4
"""Without an octet more, all that comes has come."""
OF_HEADS: Final = (*FIELDS, "connection", "allow")
UNSTABLE: Final = ("/version", "/metrics", "/debug/vars")


class Said(NamedTuple):
    """One answer as it is compared: a body that names the member, or measures it, is not."""

    status: str
    fields: dict[str, str]
    framing: str
    body: Any


class Heard(NamedTuple):
    """All that came of one odd request."""

    answers: tuple[Said, ...]
    is_closed: bool
    rest: bytes = b""


class _Octets(io.BytesIO):
    """Stands for the socket of `http.client.HTTPResponse`."""

    def makefile(self, mode: str) -> io.BytesIO:
        return self

    def close(self) -> None:
        """Others read on."""


def exchange(endpoint: str, odd: Odd) -> Heard:
    """Send one, and hear what comes until it is quiet."""
    host, _, port = endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=CONNECT_S) as sock:
        came = b""
        if not odd.is_first:
            sock.sendall(GET)
            while not came.endswith(b"}"):
                came += sock.recv(65_536)
            came = b""
        is_closed = False
        for part in odd.parts:
            try:
                sock.sendall(part)
            except OSError:
                is_closed = True
                break
            more, is_closed = _listen(sock)
            came += more
            if is_closed:
                break
    return _heard(came, odd, is_closed)


def _listen(sock: socket.socket) -> tuple[bytes, bool]:
    came = b""
    deadline_s = time.monotonic() + FIRST_S
    while (left_s := deadline_s - time.monotonic()) > 0:
        sock.settimeout(left_s)
        try:
            data = sock.recv(1 << 20)
        except TimeoutError:
            break
        except OSError:
            return came, True
        if not data:
            return came, True
        came += data
        deadline_s = time.monotonic() + QUIET_S
    return came, False


def _verbs(odd: Odd) -> list[str]:
    """Guess which of the answers have no body: those to HEAD."""
    octets = b"".join(odd.parts)
    return ["HEAD" if octets.lstrip().startswith(b"HEAD ") else "GET"]


def _heard(came: bytes, odd: Odd, is_closed: bool) -> Heard:
    found = []
    octets = _Octets(came)
    verbs = _verbs(odd)
    while octets.tell() < len(came):
        start = octets.tell()
        verb = verbs.pop(0) if verbs else "GET"
        answer = http.client.HTTPResponse(octets, method=verb)  # type: ignore[arg-type]
        if came[start:].startswith(b"HTTP/1.1 100 "):
            octets.seek(came.index(b"\r\n\r\n", start) + 4)
            found.append(Said("100", {}, "", ""))
            verbs.insert(0, verb)
            continue
        try:
            answer.begin()
            body = answer.read()
        except (http.client.HTTPException, ValueError):
            return Heard(tuple(found), is_closed, came[start:])
        fields = {name: value for name in OF_HEADS if (value := answer.getheader(name)) is not None}
        framing = "chunked" if answer.getheader("transfer-encoding") else "length"
        if answer.getheader("content-length") is None and framing == "length":
            framing = "until the end"
        version = "HTTP/1.1" if answer.version == 11 else "HTTP/1.0"
        found.append(
            Said(f"{version} {answer.status} {answer.reason}", fields, framing, _body(body))
        )
    return Heard(tuple(found), is_closed)


def _body(body: bytes) -> Any:
    if b"etcdserver\":" in body or b"# HELP" in body or b'"cmdline"' in body:
        return "of the member"
    return shown(body)


def all_heard(endpoint: str, asked: Iterable[Odd]) -> list[Heard]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda odd: exchange(endpoint, odd), asked))


def main() -> int:
    asked = list(everything())
    judged = all_heard(sys.argv[1], asked)
    if len(sys.argv) < 3:
        for odd, heard in zip(asked, judged, strict=True):
            print(odd.name, "=>", heard)
        return 0
    count = 0
    for odd, theirs, ours in zip(asked, judged, all_heard(sys.argv[2], asked), strict=True):
        if theirs != ours:
            count += 1
            print(f"{odd.name}\n  judge: {str(theirs)[:900]}\n  ours:  {str(ours)[:900]}")
    print(f"{len(asked)} requests, {count} differences")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
