"""The watcher index against looking at every watcher."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from etcdtw.mvcc.watch.index import EXACT_SHARDS, WatcherIndex

KEYS = st.binary(max_size=3).map(lambda octets: bytes(octet % 4 for octet in octets))


class Interest:
    def __init__(self, key: bytes, end: bytes | None, is_exact: bool) -> None:
        self.key = key
        self.end = end
        self.is_exact = is_exact

    def covers(self, key: bytes) -> bool:
        if self.is_exact:
            return key == self.key
        return self.key <= key and (self.end is None or key < self.end)


INTERESTS = st.builds(Interest, KEYS, st.none() | KEYS, st.booleans())


@given(st.lists(st.tuples(INTERESTS, st.booleans()), max_size=40), st.lists(KEYS, max_size=10))
def test_the_index_finds_what_a_look_at_each_watcher_finds(
    changes: list[tuple[Interest, bool]], keys: list[bytes]
) -> None:
    index: WatcherIndex[Interest] = WatcherIndex()
    present: list[Interest] = []
    for interest, is_removed_later in changes:
        index.add(interest)
        present.append(interest)
        if is_removed_later:
            gone = present.pop(len(present) // 2)
            index.remove(gone)
        for key in (interest.key, *keys):
            found = index.matching(key)
            assert len(found) == len(set(found))
            assert set(found) == {watcher for watcher in present if watcher.covers(key)}
    for watcher in present:
        index.remove(watcher)
    assert not index.has_ranges
    assert not any(index._exact)


def test_no_dict_of_single_keys_grows_with_all_of_them() -> None:
    index: WatcherIndex[Interest] = WatcherIndex()
    count = 100 * EXACT_SHARDS
    for i in range(count):
        index.add(Interest(b"%d" % i, b"", True))
    sizes = [len(shard) for shard in index._exact]
    assert sum(sizes) == count
    assert max(sizes) < 2 * count // EXACT_SHARDS


def test_a_key_between_two_ranges_is_in_neither() -> None:
    index: WatcherIndex[Interest] = WatcherIndex()
    index.add(Interest(b"a", b"c", False))
    index.add(Interest(b"d", b"z", False))
    assert index.matching(b"c") == []


def test_many_disjoint_ranges_are_not_looked_at_one_by_one() -> None:
    index: WatcherIndex[Interest] = WatcherIndex()
    for i in range(20_000):
        index.add(Interest(b"%06d/" % i, b"%06d0" % i, False))
    started = time.process_time()
    for i in range(0, 20_000, 100):
        assert len(index.matching(b"%06d/x" % i)) == 1
    # One by one these 200 look-ups would take over 200 ms.
    assert time.process_time() - started < 0.05
