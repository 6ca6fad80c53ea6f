"""Permitted ranges against a naive model: a set of keys, asked one by one."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from etcdtw.auth.interval_tree import IntervalTree
from etcdtw.auth.ranges import Ranges, is_grantable, span_of

# All keys of up to three of three octets: dense enough that ranges touch, overlap and nest.
KEYS = [bytes(k) for n in (1, 2, 3) for k in product(b"\0ab", repeat=n)]
KEY = st.sampled_from([k for k in KEYS if len(k) < 3])
RANGE_END = st.one_of(st.just(b""), st.just(b"\0"), KEY)
GRANT = st.tuples(KEY, RANGE_END).filter(lambda grant: is_grantable(*grant))


def keys_of(key: bytes, range_end: bytes) -> set[bytes]:
    """Return the keys that a request's range means, of those that there are."""
    if not range_end:
        return {key}
    return {k for k in KEYS if k >= key and (range_end == b"\0" or k < range_end)}


@given(st.lists(GRANT, max_size=8), KEY, RANGE_END)
def test_a_range_is_covered_if_each_of_its_keys_is(
    grants: list[tuple[bytes, bytes]], key: bytes, range_end: bytes
) -> None:
    granted = set().union(*[keys_of(*grant) for grant in grants])
    ranges = Ranges(span_of(*grant) for grant in grants)
    assert ranges.has(key) == (key in granted)
    if range_end in (b"", b"\0") or key < range_end:
        covers = ranges.covers(key, range_end)
        assert covers == covers_by_spans(grants, key, range_end)
        assert not covers or keys_of(key, range_end) <= granted


def covers_by_spans(grants: list[tuple[bytes, bytes]], key: bytes, range_end: bytes) -> bool:
    """Walk from ``key`` on as far as any grant reaches."""
    end = None if range_end == b"\0" else range_end or key + b"\0"
    reached: bytes | None = key
    while reached is not None and (end is None or reached < end):
        ends = [
            span[1]
            for span in (span_of(*grant) for grant in grants)
            if span[0] <= reached and (span[1] is None or reached < span[1])
        ]
        if not ends:
            return False
        reached = None if None in ends else max(e for e in ends if e is not None)
    return True


@given(st.lists(GRANT, max_size=8), KEY, RANGE_END)
def test_the_short_way_and_real_members_tree_agree(
    grants: list[tuple[bytes, bytes]], key: bytes, range_end: bytes
) -> None:
    spans = [span_of(*grant) for grant in grants]
    tree = IntervalTree()
    for begin, end in spans:
        tree.insert(begin, end or b"")
    ranges = Ranges(spans)
    assert ranges.has(key) == tree.intersects(key, key + b"\0")
    if range_end:
        end = b"" if range_end == b"\0" else range_end
        assert ranges.covers(key, range_end) == tree.contains(key, end)
        if end and end < key:
            assert not ranges.covers(key, range_end) or ranges.has(key)
        else:
            assert ranges.covers(key, range_end) == covers_by_spans(grants, key, range_end) or (
                end == key
            )


@given(st.lists(st.tuples(KEY, st.one_of(st.none(), KEY)), min_size=1, max_size=40))
def test_the_tree_finds_every_span_that_a_key_lies_in(
    spans: list[tuple[bytes, bytes | None]],
) -> None:
    proper = [(begin, end) for begin, end in spans if end is None or begin < end]
    tree = IntervalTree()
    for begin, end in proper:
        tree.insert(begin, end or b"")
    for key in KEYS:
        found = any(begin <= key and (end is None or key < end) for begin, end in proper)
        assert tree.intersects(key, key + b"\0") == found


def test_touching_and_overlapping_ranges_are_one() -> None:
    ranges = Ranges([(b"c", b"e"), (b"a", b"b"), (b"b", b"c"), (b"d", b"f"), (b"g", None)])
    assert ranges.merged == [(b"a", b"f"), (b"g", None)]
    assert ranges.covers(b"a", b"f")
    assert not ranges.covers(b"a", b"f\0")
    assert not ranges.covers(b"a", b"\0")
    assert ranges.covers(b"g", b"\0")
    assert ranges.covers(b"zz", b"\0")


def test_a_permission_on_one_key_opens_nothing_behind_it() -> None:
    """GHSA-xg4h-6gfc-h4m8: a range to the open end was taken for one key."""
    ranges = Ranges([span_of(b"k", b"")])
    assert ranges.has(b"k")
    assert not ranges.covers(b"k", b"\0")
    assert not ranges.covers(b"k", b"l")
    assert not ranges.has(b"k\0")


def test_a_range_that_ends_where_it_begins_needs_that_key() -> None:
    ranges = Ranges([(b"b", b"d")])
    assert ranges.covers(b"c", b"c")
    assert not ranges.covers(b"d", b"d")


def test_what_may_be_granted() -> None:
    assert is_grantable(b"k", b"")
    assert is_grantable(b"k", b"\0")
    assert is_grantable(b"k", b"l")
    assert not is_grantable(b"", b"l")
    assert not is_grantable(b"k", b"k")
    assert not is_grantable(b"l", b"k")


def test_ranges_of_earlier_versions_that_hold_no_key_are_asked_as_real_members_ask() -> None:
    odd = Ranges([(b"m", b"c"), (b"a", b"b")])
    assert odd.has(b"a")
    # Between the end and the begin of one that is inside out, real members find it.
    assert not odd.has(b"z")
    assert Ranges([(b"", b"b")]).has(b"zzz") is False
