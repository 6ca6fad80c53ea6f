"""Places at the peer port: who gets one, who loses one, in every pool at its edge."""

from __future__ import annotations

from etcdtw.transport.peer_port.places import KEPT, UNUSED, USED, PlaceBounds, Places

MEMBER = "10.0.0.1"
OTHER_MEMBER = "10.0.0.2"
BOUNDS = PlaceBounds(total_max=8, address_max=3, strangers_max=4, stranger_max=2)


class Holder:
    def __init__(self, use: int = UNUSED) -> None:
        self.use = use
        self.is_dropped = False

    def drop(self) -> None:
        self.is_dropped = True


def build_places(bounds: PlaceBounds = BOUNDS) -> Places:
    return Places(bounds, lambda address: address in (MEMBER, OTHER_MEMBER))


def take(places: Places, address: str, use: int = UNUSED) -> Holder:
    holder = Holder(use)
    assert places.take(holder, address)
    return holder


def dropped(holders: list[Holder]) -> list[bool]:
    return [holder.is_dropped for holder in holders]


def test_a_newcomer_takes_the_oldest_unused_place_of_a_members_address() -> None:
    places = build_places()
    holders = [take(places, MEMBER, use) for use in (USED, UNUSED, UNUSED)]
    assert not any(dropped(holders))
    take(places, MEMBER)
    assert dropped(holders) == [False, True, False]
    assert len(places) == 3
    assert places.evicted == 1


def test_without_unused_places_the_oldest_used_one_goes_and_streams_stay() -> None:
    places = build_places()
    holders = [take(places, MEMBER, use) for use in (KEPT, USED, KEPT)]
    newcomer = take(places, MEMBER, KEPT)
    assert dropped(holders) == [False, True, False]
    assert not places.take(Holder(), MEMBER)
    assert not newcomer.is_dropped


def test_strangers_cannot_take_a_members_place() -> None:
    places = build_places()
    members = [take(places, MEMBER) for _ in range(3)] + [take(places, OTHER_MEMBER)]
    strangers = [take(places, f"192.0.2.{i}") for i in range(50)]
    assert not any(dropped(members))
    assert dropped(strangers) == [True] * 46 + [False] * 4


def test_one_strangers_address_has_few_places() -> None:
    places = build_places()
    other = take(places, "192.0.2.1")
    flood = [take(places, "192.0.2.2") for _ in range(10)]
    assert not other.is_dropped
    assert dropped(flood) == [True] * 8 + [False] * 2


def test_members_come_in_when_strangers_fill_the_port() -> None:
    places = build_places(PlaceBounds(total_max=4, address_max=3, strangers_max=4, stranger_max=4))
    strangers = [take(places, f"192.0.2.{i}", KEPT) for i in range(4)]
    members = [take(places, MEMBER, KEPT) for _ in range(3)]
    assert dropped(strangers) == [True] * 3 + [False]
    assert not any(dropped(members))


def test_who_is_proved_leaves_the_strangers_pool() -> None:
    places = build_places()
    proved = take(places, "192.0.2.1")
    assert places.is_stranger(proved)
    places.prove(proved)
    assert not places.is_stranger(proved)
    strangers = [take(places, f"192.0.2.{i}") for i in range(50)]
    assert not proved.is_dropped
    assert sum(dropped(strangers)) == 46
    places.leave(proved)
    places.leave(proved)
    assert len(places) == 4


def test_a_unix_socket_is_no_stranger() -> None:
    places = build_places()
    assert not places.is_stranger(take(places, ""))
