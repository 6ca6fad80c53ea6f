"""One slice of history for the watchers that share it: what each wants goes into its batch."""

from __future__ import annotations

from collections import Counter

from etcdtw.mvcc.backend import Change
from etcdtw.mvcc.watch.bounds import SLICE_BYTES_MAX, SLICE_EVENTS_MAX
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
) -> tuple[dict[Watcher, int], int, int]:
    """Add what each watcher wants of ``changes``, which reach up to ``last``, to its batch.

    Returns the watchers whose batch is full, each with the revision at which it goes on; the
    revision that the others have reached, below ``last`` when a bound of the slice was met; and
    the octets.  A revision that may have more than ``direct_max`` deliveries is left for later.
    """
    index: WatcherIndex[Watcher] = WatcherIndex()
    for watcher in sharing:
        index.add(watcher)
    sizes = Counter([change.main for change in changes])
    full: dict[Watcher, int] = {}
    count = size = main = 0
    for change in changes:
        if change.main != main:
            is_over = count >= SLICE_EVENTS_MAX or size >= SLICE_BYTES_MAX
            if is_over or (main and sizes[change.main] * len(sharing) > direct_max):
                return full, main, size
            main = change.main
        record = change.record
        key = key_of(record)
        matching = index.matching(key)
        if not matching:
            continue
        if change.is_tombstone:
            record = tombstone_record(record, main)
        shared = SharedEvent(main, (key, change.is_tombstone, record))
        for watcher in matching:
            octets = _add(encoder, shared, watcher, full)
            if octets is not None:
                count += 1
                size += octets
    return full, last, size


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
