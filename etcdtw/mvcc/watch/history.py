"""One slice of history for the watchers that share it: what each wants goes into its batch."""

from __future__ import annotations

from collections import Counter

from etcdtw.mvcc.backend import Change
from etcdtw.mvcc.watch.bounds import DIRECT_OCTETS_MAX, SLICE_BYTES_MAX, SLICE_EVENTS_MAX
from etcdtw.mvcc.watch.fan_out import EventEncoder, SharedEvent
from etcdtw.mvcc.watch.index import WatcherIndex
from etcdtw.mvcc.watch.octets import key_of, tombstone_record
from etcdtw.mvcc.watch.stream import Batch, Watcher


def gather(
    encoder: EventEncoder,
    sharing: list[Watcher],
    changes: list[Change],
    last: int,
    direct_max: int,
) -> tuple[dict[Watcher, int], int, int, int]:
    """Add what each watcher wants of ``changes``, which reach up to ``last``, to its batch.

    Returns the watchers whose batch is full, each with the revision at which it goes on; the
    revision that the others have reached, below ``last`` when a bound of the slice was met; the
    octets; and the next revision if it is one to be told in steps, with more than ``direct_max``
    deliveries or too many octets, or 0.
    """
    index: WatcherIndex[Watcher] = WatcherIndex()
    for watcher in sharing:
        index.add(watcher)
    sizes = Counter([change.main for change in changes])
    full: dict[Watcher, int] = {}
    count = size = main = made = reached = 0
    for change in changes:
        if change.main != main:
            reached = main or change.main - 1
            main = change.main
            made = 0
            if count >= SLICE_EVENTS_MAX or size >= SLICE_BYTES_MAX:
                return full, reached, size, 0
            if len(sharing) > 1 and sizes[main] * len(sharing) > direct_max:
                return full, reached, size, main
        record = change.record
        key = key_of(record)
        matching = index.matching(key)
        if not matching:
            continue
        if change.is_tombstone:
            record = tombstone_record(record, main)
        shared = SharedEvent(main, (key, change.is_tombstone, record))
        largest = 0
        for watcher in matching:
            octets = _add(encoder, shared, watcher, full)
            if octets is not None:
                count += 1
                size += octets
                largest = max(largest, octets)
        made += largest
        if made > DIRECT_OCTETS_MAX:
            size -= sum([_take_back(watcher, main) for watcher in sharing])
            return {w: at for w, at in full.items() if at != main}, reached, size, main
    return full, last, size, 0


def _take_back(watcher: Watcher, main: int) -> int:
    """Take what there is of revision ``main`` out of a watcher's batch; return its octets."""
    batch = watcher.batch
    return 0 if batch is None else batch.take_back(main)


def _add(
    encoder: EventEncoder, shared: SharedEvent, watcher: Watcher, full: dict[Watcher, int]
) -> int | None:
    """Add one event to the batch of a watcher, if it is to have it; return its octets."""
    main = shared.main
    if watcher.next_revision > main or (full and watcher in full):
        return None
    batch = watcher.batch
    if batch is None:
        batch = watcher.batch = Batch()
    if not batch.takes(main):
        full[watcher] = main
        return None
    if watcher.filters & shared.blocked:
        return None
    octets = encoder.octets(shared, watcher.wants_previous)
    batch.add(octets)
    return len(octets)
