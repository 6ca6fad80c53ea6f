"""Members' addresses: literals at once, names when they are looked up, the last finding kept."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from etcdtw.transport.peer_port.addresses import (
    LOOKUP_INTERVAL_S,
    LOOKUPS_AT_ONCE_MAX,
    NAMES_MAX,
    MemberAddresses,
)
from etcdtw.transport.tls.addresses import TooManyLookupsError

AGAIN_MS = LOOKUP_INTERVAL_S * 1000


class Lookup:
    def __init__(self) -> None:
        self.asked: list[tuple[str, Deferred[Sequence[str]]]] = []

    def names_of(self, address: str) -> Deferred[Sequence[str]]:
        raise AssertionError("nobody asks for names")

    def addresses_of(self, name: str) -> Deferred[Sequence[str]]:
        answer: Deferred[Sequence[str]] = Deferred()
        self.asked.append((name, answer))
        return answer


def test_addresses_in_urls_count_at_once() -> None:
    urls = ["http://10.0.0.1:2380", "https://[2001:db8:0::1]:2380", "unix://a", "rubbish"]
    addresses = MemberAddresses(Lookup(), lambda: urls)
    addresses.look(0)
    assert addresses.has("10.0.0.1")
    assert addresses.has("2001:db8::1")
    assert not addresses.has("10.0.0.2")
    urls.pop(0)
    addresses.look(999)
    assert addresses.has("10.0.0.1")
    addresses.look(1000)
    assert not addresses.has("10.0.0.1")


def test_names_are_looked_up_again_and_what_was_found_last_counts_meanwhile() -> None:
    lookup = Lookup()
    addresses = MemberAddresses(lookup, lambda: ["http://a.example:1", "http://a.example:2"])
    addresses.look(0)
    assert [name for name, _ in lookup.asked] == ["a.example"]
    assert not addresses.has("10.0.0.1")
    lookup.asked[0][1].callback(["10.0.0.1"])
    assert addresses.has("10.0.0.1")
    addresses.look(AGAIN_MS - 1)
    assert len(lookup.asked) == 1
    addresses.look(AGAIN_MS + 1000)
    lookup.asked[1][1].errback(OSError("no such host"))
    assert addresses.has("10.0.0.1")
    addresses.look(3 * AGAIN_MS)
    lookup.asked[2][1].callback(["10.0.0.2"])
    assert not addresses.has("10.0.0.1")
    assert addresses.has("10.0.0.2")


def test_a_member_that_left_is_forgotten_even_if_its_name_is_found_late() -> None:
    lookup = Lookup()
    urls = ["http://a.example:1"]
    addresses = MemberAddresses(lookup, lambda: urls)
    addresses.look(0)
    urls.clear()
    addresses.look(1000)
    lookup.asked[0][1].callback(["10.0.0.1"])
    assert not addresses.has("10.0.0.1")


def urls(count: int) -> list[str]:
    return [f"http://m{i}.example:1" for i in range(count)]


def test_names_are_bounded() -> None:
    lookup = Lookup()
    addresses = MemberAddresses(lookup, lambda: urls(NAMES_MAX + 1))
    addresses.look(0)
    for _, answer in lookup.asked:  # each answer brings the next question
        answer.callback(["10.0.0.1"])
    assert len(lookup.asked) == NAMES_MAX


def test_a_few_names_are_looked_up_at_once_and_each_gets_its_turn() -> None:
    lookup = Lookup()
    addresses = MemberAddresses(lookup, lambda: urls(3 * LOOKUPS_AT_ONCE_MAX))
    addresses.look(0)
    assert len(lookup.asked) == LOOKUPS_AT_ONCE_MAX
    addresses.look(1000)
    assert len(lookup.asked) == LOOKUPS_AT_ONCE_MAX
    for i, (_, answer) in enumerate(lookup.asked):
        answer.callback([f"10.0.0.{i}"])
    assert len(lookup.asked) == 3 * LOOKUPS_AT_ONCE_MAX
    assert all(addresses.has(f"10.0.0.{i}") for i in range(3 * LOOKUPS_AT_ONCE_MAX))
    # Those that were asked first are the first again.
    for ms in (60_000, AGAIN_MS + 1000):
        addresses.look(ms)
    again = [name for name, _ in lookup.asked[3 * LOOKUPS_AT_ONCE_MAX :]]
    assert again == [f"m{i}.example" for i in range(LOOKUPS_AT_ONCE_MAX)]


def test_a_name_that_was_not_asked_for_want_of_room_is_asked_at_the_next_look() -> None:
    lookup = Lookup()
    addresses = MemberAddresses(lookup, lambda: urls(1))
    addresses.look(0)
    lookup.asked[0][1].errback(TooManyLookupsError("too many"))
    assert len(lookup.asked) == 1
    addresses.look(1000)
    lookup.asked[1][1].callback(["10.0.0.1"])
    assert addresses.has("10.0.0.1")
