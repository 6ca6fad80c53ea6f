"""Asking peers for pages: answers, deadlines, bounds."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from etcdtw.transport.peer.request import REQUEST_S, PeerRequestError, request_page
from etcdtw.transport.peer.seams import PageAnswer
from tests.transport.peer.peer_rig import ONE, Member, Silent, Wires, pass_time, settle, url_of


@pytest.fixture
def one() -> Member:
    return Member(Wires(Clock()), ONE)


def ask(
    one: Member, path: str, method: str = "GET", body: bytes = b"", url: str = url_of(ONE)
) -> Deferred[PageAnswer]:
    return request_page(one.wires.dial, one.clock, url, method, path, body=body, size_max=1000)


def result(one: Member, asked: Deferred[PageAnswer]) -> object:
    found: list[object] = []
    asked.addBoth(found.append)
    settle(one.clock)
    return found[0] if found else None


def why(found: object) -> str:
    assert isinstance(found, Failure)
    assert found.check(PeerRequestError)
    return found.getErrorMessage()


def test_a_page_is_answered_and_the_connection_closed(one: Member) -> None:
    answer = result(one, ask(one, "/echo", body=b'{"revision":1}'))
    assert isinstance(answer, PageAnswer)
    assert (answer.status, answer.body) == (200, b'{"revision":1}')
    assert ("x-asked", "GET") in answer.headers
    assert one.pages.asked == [("GET", "/echo", b'{"revision":1}')]
    assert one.port.connection_count == 0
    assert one.clock.getDelayedCalls() == []


def test_any_status_is_an_answer(one: Member) -> None:
    answer = result(one, ask(one, "/nowhere", "POST"))
    assert isinstance(answer, PageAnswer)
    assert (answer.status, answer.body) == (404, b"404 page not found\n")


def test_an_answer_is_bounded(one: Member) -> None:
    assert isinstance(result(one, ask(one, "/echo", body=b"x" * 1000)), PageAnswer)
    found = result(one, ask(one, "/echo", body=b"x" * 1001))
    assert why(found) == "http://peer-a1:2380: the answer has more than 1000 octets"


def test_a_peer_that_is_not_there_is_named(one: Member) -> None:
    found = result(one, ask(one, "/echo", url="http://nobody:1"))
    assert why(found).startswith("http://nobody:1: ")


@pytest.mark.parametrize("listener", ["hangs", Silent])
def test_an_answer_is_not_waited_for_for_ever(one: Member, listener: object) -> None:
    one.wires.listeners["http://slow:1"] = listener
    found: list[object] = []
    ask(one, "/echo", url="http://slow:1").addBoth(found.append)
    pass_time(one.clock, REQUEST_S - 0.1)
    assert found == []
    pass_time(one.clock, 0.2)
    assert why(found[0]) == "http://slow:1: no answer within 5 s"
    assert one.wires.open_ends() == []


def test_a_redirect_is_not_followed(one: Member) -> None:
    class Redirecting(Silent):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(b"HTTP/1.1 302 F\r\nLocation: http://evil:1/\r\n\r\n")
            self.transport.loseConnection()

    one.wires.listeners["http://moved:1"] = Redirecting
    answer = result(one, ask(one, "/echo", url="http://moved:1"))
    assert isinstance(answer, PageAnswer)
    assert answer.status == 302
    assert len(one.wires.dialled) == 1


@pytest.mark.parametrize(
    "octets", [b"rubbish\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"]
)
def test_a_broken_answer_is_an_error(one: Member, octets: bytes) -> None:
    class Breaking(Silent):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(octets)
            self.transport.loseConnection()

    one.wires.listeners["http://bad:1"] = Breaking
    assert why(result(one, ask(one, "/echo", url="http://bad:1"))).startswith("http://bad:1: ")


def test_a_request_may_be_cancelled(one: Member) -> None:
    asked = ask(one, "/hangs")
    settle(one.clock)
    asked.cancel()
    found = result(one, asked)
    assert isinstance(found, Failure)
    assert found.check(CancelledError)
    assert one.pages.cancelled == 1
    assert one.wires.open_ends() == []
