"""Every state of a watcher against every input; the table of docs/machines/watch-stream.md."""

from __future__ import annotations

import pytest

from etcdtw.mvcc.watch.stream import CLOSED, COMPACTED, SYNCED, UNSYNCED, Watcher
from tests.support.watch_rig import Client, WatchRig

START = ("synced", "synced paused", "unsynced", "unsynced paused", "compacted")
INPUTS = ("event", "work", "compaction", "cancel", "close", "resume")

QUIET = ""
EVENTS = "events"
CANCELED = "canceled"
COMPACT = "canceled by compaction"

TABLE = {
    ("synced", "event"): (SYNCED, EVENTS),
    ("synced", "work"): (SYNCED, QUIET),
    ("synced", "compaction"): (SYNCED, QUIET),
    ("synced", "cancel"): (CLOSED, CANCELED),
    ("synced", "close"): (CLOSED, QUIET),
    ("synced", "resume"): (SYNCED, QUIET),
    ("synced paused", "event"): (UNSYNCED, QUIET),
    ("synced paused", "work"): (SYNCED, QUIET),
    ("synced paused", "compaction"): (SYNCED, QUIET),
    ("synced paused", "cancel"): (CLOSED, CANCELED),
    ("synced paused", "close"): (CLOSED, QUIET),
    ("synced paused", "resume"): (SYNCED, QUIET),
    ("unsynced", "event"): (UNSYNCED, QUIET),
    ("unsynced", "work"): (SYNCED, EVENTS),
    ("unsynced", "compaction"): (COMPACTED, COMPACT),
    ("unsynced", "cancel"): (CLOSED, CANCELED),
    ("unsynced", "close"): (CLOSED, QUIET),
    ("unsynced", "resume"): (UNSYNCED, QUIET),
    ("unsynced paused", "event"): (UNSYNCED, QUIET),
    ("unsynced paused", "work"): (UNSYNCED, QUIET),
    ("unsynced paused", "compaction"): (UNSYNCED, QUIET),
    ("unsynced paused", "cancel"): (CLOSED, CANCELED),
    ("unsynced paused", "close"): (CLOSED, QUIET),
    ("unsynced paused", "resume"): (UNSYNCED, QUIET),
    ("compacted", "event"): (COMPACTED, QUIET),
    ("compacted", "work"): (COMPACTED, QUIET),
    ("compacted", "compaction"): (COMPACTED, QUIET),
    ("compacted", "cancel"): (CLOSED, CANCELED),
    ("compacted", "close"): (CLOSED, QUIET),
    ("compacted", "resume"): (COMPACTED, QUIET),
}


def watcher_in(rig: WatchRig, state: str) -> tuple[Client, Watcher]:
    """Return a client and its one watcher, brought to ``state``."""
    client = rig.client()
    for _ in range(4):
        rig.put(b"k")
    if state == "compacted":
        rig.store.compact(3)
    if state.startswith("synced"):
        client.create(b"k", watch_id=1)
    else:
        client.create(b"k", watch_id=1, start_revision=2)
    watcher = client.stream.watchers[1]
    if state == "compacted":
        rig.settle()
        client.take()
    if state.endswith("paused"):
        client.block()
    return client, watcher


def give(rig: WatchRig, client: Client, what: str) -> None:
    if what == "event":
        rig.put(b"k")
    elif what == "work":
        rig.settle()
    elif what == "compaction":
        rig.put(b"other")
        rig.store.compact(rig.store.revision)
        rig.settle()
    elif what == "cancel":
        client.stream.cancel(1)
    elif what == "close":
        client.stream.close()
    else:
        client.unblock()


def outcome(client: Client) -> str:
    responses = client.take()
    if not responses:
        return QUIET
    (response,) = responses
    if response.compact_revision:
        return COMPACT
    return CANCELED if response.canceled else EVENTS


@pytest.mark.parametrize("what", INPUTS)
@pytest.mark.parametrize("state", START)
def test_every_state_answers_every_input_as_the_table_says(state: str, what: str) -> None:
    rig = WatchRig()
    client, watcher = watcher_in(rig, state)
    give(rig, client, what)
    assert (watcher.state, outcome(client)) == TABLE[state, what]
    # Whatever happened, the books balance.
    is_active = watcher.state in (SYNCED, UNSYNCED)
    assert rig.hub.watchers == is_active
    assert rig.hub.slow_watchers == (watcher.state == UNSYNCED)
    assert rig.store.has_watchers == is_active
