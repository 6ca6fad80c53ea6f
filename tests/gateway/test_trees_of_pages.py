"""Pages below one path, and WebSockets there, on a connection of HTTP/1.1 in memory."""

from __future__ import annotations

from typing import cast

import pytest
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.testing import StringTransport

from etcdtw.gateway.pages import Answer, Pages, Posted, Taking
from etcdtw.gateway.websocket import accept_key
from etcdtw.transport.client.http1 import Http1Channel
from etcdtw.transport.client.http1_site import HttpSite
from etcdtw.transport.client.seams import Successor
from etcdtw.transport.rounds import Rounds
from tests.transport.client.test_http1 import Taker
from tests.transport.test_rounds import Iterations

KEY = b"AAAAAAAAAAAAAAAAAAAAAA=="
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
WHOLE = UPGRADE + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n"


class Rig:
    """A tree at /t/ with one page and WebSockets; implements `pages.Tree`."""

    def __init__(self) -> None:
        self.clock = Iterations()
        self.taker = Taker()
        self.barred = False
        pages = Pages({b"/t/both": lambda arguments: Answer(200, b"got")}, tree=self)
        site = HttpSite(
            pages, self.clock, body_size_max=pages.body_size_max, unix_s=self.clock.seconds
        )
        self.transport = StringTransport()
        self.channel = Http1Channel(site, self.transport, Rounds(self.clock))

    def find(self, path: bytes) -> Taking | None:
        taking = Taking(lambda posted: Answer(200, posted.body), 10)
        return taking if path == b"/t/page" else None

    def bar(self, path: bytes, connection: ITCPTransport) -> Answer | None:
        assert connection is cast(ITCPTransport, self.transport)
        return Answer(400, b"no") if self.barred else None

    def refuse(self, verb: bytes, path: bytes) -> Answer | None:
        return Answer(501, b"refused") if path.startswith(b"/t/") else None

    def upgrade(self, path: bytes, posted: Posted) -> Successor | None:
        return self.taker if path.startswith(b"/t/") else None

    def ask(self, line: bytes, fields: bytes = b"", body: bytes = b"") -> bytes:
        """Return the answer."""
        self.transport.clear()
        self.channel.receive(line + b" HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n" + body)
        octets: bytes = self.transport.value()
        return octets


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_tree_words_by_itself_what_is_none_of_its_pages(rig: Rig) -> None:
    assert rig.ask(b"POST /t/page", b"Content-Length: 3\r\n", b"abc").endswith(b"\r\n\r\nabc")
    assert rig.ask(b"GET /t/page").startswith(b"HTTP/1.1 501 ")
    assert rig.ask(b"GET /t/other").endswith(b"refused")
    assert rig.ask(b"GET /t/both").endswith(b"got")
    assert rig.ask(b"GET /t/b%6fth").endswith(b"got")
    assert rig.ask(b"GET /u/page").startswith(b"HTTP/1.1 404 ")


def test_who_is_barred_asks_nothing(rig: Rig) -> None:
    rig.barred = True
    assert rig.ask(b"GET /t/both").endswith(b"no")


def test_the_whole_server_has_no_page(rig: Rig) -> None:
    answer = rig.ask(b"GET *")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Content-Type" not in answer
    assert rig.transport.disconnecting


def test_a_connection_becomes_a_websocket(rig: Rig) -> None:
    answer = rig.ask(b"GET /t/socket", WHOLE, b"frames")
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"Sec-WebSocket-Accept: " + accept_key(KEY) in answer
    rig.clock.iterate()
    assert rig.taker.told == ["began", b"frames"]


@pytest.mark.parametrize(
    ("line", "fields", "status"),
    [
        (b"GET /t/socket", UPGRADE, b"400"),
        (b"GET /t/socket", WHOLE.replace(b"13", b"12"), b"400"),
        (b"POST /t/socket", WHOLE, b"405"),
    ],
)
def test_what_is_no_handshake_is_refused(
    rig: Rig, line: bytes, fields: bytes, status: bytes
) -> None:
    answer = rig.ask(line, fields)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"Sec-Websocket-Version: 13\r\n" in answer
    assert rig.ask(b"GET /t/both").endswith(b"got")


def test_elsewhere_there_are_no_websockets(rig: Rig) -> None:
    assert rig.ask(b"GET /u/socket", WHOLE).startswith(b"HTTP/1.1 404 ")
