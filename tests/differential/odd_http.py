"""Odd requests of HTTP/1.x to two members, and where their answers differ.

``python -m tests.differential.odd_http HOST:PORT HOST:PORT`` compares two members.
"""

from __future__ import annotations

import http.client
import io
import socket
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from tests.differential.json_pages import FIELDS, shown
from tests.differential.odd_requests import GET, Odd
from tests.differential.odd_requests import everything as odd_requests

AT_ONCE: Final = 24
"""Connections to a member."""
CONNECT_S: Final = 10.0
FIRST_S: Final = 1.0
QUIET_S: Final = 0.4
"""Without an octet more, all that comes has come."""
OF_HEADS: Final = (*FIELDS, "connection", "allow")
OF_THE_MEMBER: Final = "of the member"
PATIENCE: Final = (1, 4)
FIRST_LINES: Final = "a connection whose first line is no request"
HEADS: Final = "heads have 64 KiB and 1,000 fields"
UNCLEAN: Final = "URLs without a path are not redirected"
NAMED: Final = {
    "target b'http://a'": UNCLEAN,
    "target b'http://a?x'": UNCLEAN,
    "target b'http:version'": UNCLEAN,
    "target b'a:80'": UNCLEAN,
    "target b'/./version'": UNCLEAN,
    "HEAD b'a:80'": UNCLEAN,
    "POST b'a:80'": UNCLEAN,
    "target b'/version?xx": HEADS,
    "1000 fields": HEADS,
    "5000 fields": HEADS,
    "a field of 500000": HEADS,
    "a field of 1040000": HEADS,
    "the same field a thousand times": HEADS,
    "HEAD /metrics": "answers of up to 32 KiB carry their length",
}


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


def exchange(endpoint: str, odd: Odd, patience: int = 1) -> Heard:
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
            more, is_closed = _listen(sock, patience)
            came += more
            if is_closed:
                break
    return _heard(came, odd, is_closed)


def _listen(sock: socket.socket, patience: int) -> tuple[bytes, bool]:
    came = b""
    deadline_s = time.monotonic() + FIRST_S * patience
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
        deadline_s = time.monotonic() + QUIET_S * patience
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
        if _body(body) == OF_THE_MEMBER:
            framing = "any"  # theirs is larger, and streamed
        version = "HTTP/1.1" if answer.version == 11 else "HTTP/1.0"
        found.append(
            Said(f"{version} {answer.status} {answer.reason}", fields, framing, _body(body))
        )
    return Heard(tuple(found), is_closed)


def _body(body: bytes) -> Any:
    if b'etcdserver":' in body or b"# HELP" in body or b'"cmdline"' in body:
        return OF_THE_MEMBER
    return shown(body)


def named(odd: Odd, theirs: Heard, ours: Heard) -> str:
    """Return the departure (docs/departures.md) that explains a difference; empty: none does."""
    for prefix, why in NAMED.items():
        if odd.name.removeprefix("first: ").startswith(prefix):
            return why
    is_hung_up = not (theirs.answers and ours.answers)
    return FIRST_LINES if odd.is_first and is_hung_up else ""


def all_heard(endpoint: str, asked: Sequence[Odd], patience: int = 1) -> list[Heard]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda odd: exchange(endpoint, odd, patience), asked))


def differences(left: str, right: str) -> tuple[int, list[str]]:
    """Return how many were compared, and where the members differ without a name for it.

    What differs is asked again, and waited for longer: this machine may be busy.
    """
    asked = everything = list(odd_requests())
    found: list[tuple[Odd, Heard, Heard]] = []
    for patience in PATIENCE:
        with ThreadPoolExecutor(2) as pool:
            heard = [pool.submit(all_heard, end, asked, patience) for end in (left, right)]
            pairs = zip(asked, *[one.result() for one in heard], strict=True)
            found = [one for one in pairs if one[1] != one[2] and not named(*one)]
        asked = [odd for odd, _, _ in found]
    return len(everything), [
        f"{odd.name}\n  judge: {str(theirs)[:900]}\n  ours:  {str(ours)[:900]}"
        for odd, theirs, ours in found
    ]


def main() -> int:
    """Compare the members at two endpoints."""
    count, found = differences(*sys.argv[1:3])
    print(f"{count} requests, {len(found)} differences")
    print("\n".join(found))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
