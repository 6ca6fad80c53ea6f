"""Walks over the keys of a lease, against the naive model: whatever happens between two steps."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from etcdtw.mvcc.attached_walk import AttachedWalk
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.state import LmdbState
from tests.storage.state.test_model import StateRig

LEASE = 7


class Reading:
    """One walk, and what its steps returned."""

    def __init__(self, state: LmdbState, lease_id: int) -> None:
        self.walk = state.walk_attached(lease_id)
        self.seen: list[bytes] = []

    def step(self, limit: int) -> bool:
        """Read on; return whether the walk is over."""
        self.seen += self.walk.step(limit)
        return self.walk.is_done

    def keys(self) -> list[bytes]:
        """End it, and return what the lease has."""
        self.walk.close()
        return sorted(self.walk.kept(self.seen) + self.walk.came_to_stay())


@pytest.mark.parametrize("seed", range(12))
def test_a_walk_ends_with_the_keys_of_that_moment(seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="etcdtw-walks-") as directory:
        random = Random(seed)
        rig = StateRig(Path(directory) / "state", random)
        readings: list[Reading] = []
        ended = 0
        for _ in range(400):
            state = rig.state
            rig.step()
            if rig.state is not state:
                readings = []
            if random.random() < 0.2:
                readings.append(Reading(rig.state, random.choice((7, 8, 9))))
            for reading in list(readings):
                if not reading.walk.is_done and not reading.step(random.choice((1, 2, 5))):
                    continue
                readings.remove(reading)
                ended += 1
                attached = rig.model.attached(reading.walk.lease_id)
                assert set(attached) <= set(reading.seen)
                assert reading.keys() == attached
        assert ended > 20
        rig.state.close()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[LmdbState]:
    opened = open_state(tmp_path / "state", pytest.fail, map_size=1 << 26)
    yield opened
    opened.close()


def rest(walk: AttachedWalk) -> list[bytes]:
    found: list[bytes] = []
    while not walk.is_done:
        found += walk.step(2)
    return found


def test_what_a_long_entry_does_is_heard_when_it_is_in_sight(state: LmdbState) -> None:
    for key in (b"a", b"b", b"c", b"d", b"e"):
        state.attach(LEASE, key)
    state.set_applied(1, 1)
    state.flush(lambda: None)
    before, amid = Reading(state, LEASE), Reading(state, LEASE + 1)
    before.step(2)
    state.reveal()
    state.detach(LEASE, b"c")
    state.conceal()
    during = Reading(state, LEASE)
    while not during.step(1):
        pass
    assert during.keys() == [b"a", b"b", b"c", b"d", b"e"]
    state.publish()
    assert (before.walk.is_void, amid.walk.is_void) == (True, False)
    assert sorted(rest(state.walk_attached(LEASE))) == [b"a", b"b", b"d", b"e"]


def test_a_walk_that_is_closed_hears_no_more(state: LmdbState) -> None:
    first, second = state.walk_attached(LEASE), state.walk_attached(LEASE)
    first.close()
    first.close()
    state.attach(LEASE, b"k")
    assert (first.came_to_stay(), second.came_to_stay()) == ([], [b"k"])
    assert second.step(10) == [b"k"]
    assert second.is_done
