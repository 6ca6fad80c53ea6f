"""Look-ups by the machine's own means: bounded in number, one at a time for each name."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from etcdtw.transport.name_lookup import LOOKUPS_MAX, WAITERS_MAX, DialResolver, SystemLookup

LOOPBACK = "127.0.0.1"


class Threads:
    """A reactor whose pool does its work when told to."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def getThreadPool(self) -> Threads:
        return self

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        function(*arguments)

    def callInThreadWithCallback(self, done: Any, function: Any, *arguments: Any) -> None:
        def run() -> None:
            try:
                done(True, function(*arguments))
            except (OSError, ValueError):
                done(False, Failure())

        self.work.append(run)

    def do(self) -> None:
        while self.work:
            self.work.pop(0)()


@pytest.fixture
def threads() -> Threads:
    return Threads()


@pytest.fixture
def lookup(threads: Threads) -> SystemLookup:
    reactor: Any = threads
    return SystemLookup(reactor)


def outcome(looked_up: Deferred[Any]) -> list[Any]:
    """What comes of a look-up: one value, or one text of an error."""
    seen: list[Any] = []
    looked_up.addCallbacks(seen.append, lambda failure: seen.append(str(failure.value)))
    return seen


def test_the_machine_is_asked_in_threads(threads: Threads, lookup: SystemLookup) -> None:
    found = outcome(lookup.addresses_of("localhost"))
    assert found == []
    threads.do()
    assert LOOPBACK in found[0]
    failed: list[Any] = []
    asked: Deferred[Any] = lookup.names_of("no address")
    asked.addErrback(lambda failure: failed.append(failure.type))
    threads.do()
    assert issubclass(failed[0], (socket.gaierror, socket.herror))


def test_look_ups_are_bounded_and_whoever_gives_up_frees_no_thread(
    threads: Threads, lookup: SystemLookup
) -> None:
    asked = [lookup.addresses_of(f"{i}.0.0.1") for i in range(LOOKUPS_MAX)]
    refused = ["DNS lookup failed: too many look-ups at once."]
    assert outcome(lookup.names_of(LOOPBACK)) == refused
    given_up = outcome(asked[0])
    asked[0].cancel()
    assert len(given_up) == 1
    assert outcome(lookup.names_of(LOOPBACK)) == refused
    last = outcome(asked[-1])
    threads.do()
    assert last == [[f"{LOOKUPS_MAX - 1}.0.0.1"]]
    assert outcome(lookup.names_of(LOOPBACK)) == []


def test_a_name_is_looked_up_once_for_all_who_ask_meanwhile(
    threads: Threads, lookup: SystemLookup
) -> None:
    found = [outcome(lookup.addresses_of(LOOPBACK)) for _ in range(WAITERS_MAX - 1)]
    last = lookup.sockets_of(LOOPBACK)
    assert len(threads.work) == 1
    refused = [f"DNS lookup failed: too many wait for {LOOPBACK}."]
    assert outcome(lookup.addresses_of(LOOPBACK)) == refused
    outcome(last)
    last.cancel()
    found.append(outcome(lookup.addresses_of(LOOPBACK)))
    threads.do()
    assert found == [[[LOOPBACK]]] * WAITERS_MAX


class Receiver:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def resolutionBegan(self, resolution: Any) -> None:
        self.told.append(resolution.name)

    def addressResolved(self, address: Any) -> None:
        self.told.append(address)

    def resolutionComplete(self) -> None:
        self.told.append("complete")


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (LOOPBACK, IPv4Address("TCP", LOOPBACK, 2380)),
        ("::1", IPv6Address("TCP", "::1", 2380)),
    ],
)
def test_a_dial_gets_the_addresses_of_its_host(
    threads: Threads, lookup: SystemLookup, name: str, address: Any
) -> None:
    receiver: Any = Receiver()
    DialResolver(lookup).resolveHostName(receiver, name, 2380)
    assert receiver.told == [name]
    threads.do()
    assert receiver.told == [name, address, "complete"]


def test_a_dial_of_a_name_that_is_not_found_is_told_of_none(
    threads: Threads, lookup: SystemLookup
) -> None:
    receiver: Any = Receiver()
    DialResolver(lookup).resolveHostName(receiver, "x" * 70 + ".test", 2380)
    threads.do()
    for i in range(LOOKUPS_MAX):
        lookup.addresses_of(f"{i}.0.0.1")
    DialResolver(lookup).resolveHostName(receiver, "m2.test", 2380)
    assert receiver.told == ["x" * 70 + ".test", "complete", "m2.test", "complete"]


def test_redials_while_a_resolver_hangs_hold_one_thread(
    threads: Threads, lookup: SystemLookup
) -> None:
    resolver = DialResolver(lookup)
    for _ in range(600):
        for name in ("m1.test", "m2.test", "m3.test", "m4.test"):
            receiver: Any = Receiver()
            resolver.resolveHostName(receiver, name, 2380)
    assert len(threads.work) == 4
