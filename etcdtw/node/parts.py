"""What a node is made of: the cores, the disk and the ways out of other rooms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from etcdtw.apply.alarms import Alarms
from etcdtw.apply.applier import Applier
from etcdtw.apply.members import Members
from etcdtw.lease.lessor import Lessor
from etcdtw.mvcc.store import Store
from etcdtw.mvcc.watch.hub import WatchHub
from etcdtw.node.duties.cluster_version import AskVersions, nobody_answers
from etcdtw.node.duties.corruption import NO_CHECKS, AskHashes, CheckIntervals
from etcdtw.node.duties.corruption import nobody_answers as nobody_hashes
from etcdtw.node.duties.history.auto_compaction import AutoCompaction
from etcdtw.node.duties.history.quota_compaction import AskPrograms, nobody_says
from etcdtw.node.duties.quota import NO_QUOTA, QuotaRules
from etcdtw.node.duties.snapshots import StateSnapshotFiles
from etcdtw.node.intake.inbox import Identify
from etcdtw.node.intake.requests import RequestIds
from etcdtw.node.intake.seams import NO_DAMAGE, Damage, Flushes, StateStore
from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.node.standing import Standing
from etcdtw.raft.raw_node import RawNode
from etcdtw.raft.storage import LogStore
from etcdtw.storage.disk.room import ROOMY, RoomFound
from etcdtw.wire.encode import ResponseHeaders
from etcdtw.wire.pieces import UNMEASURED, Pieces


def _nothing() -> None:
    """Nobody wants to know that this member was removed."""


def _roomy(_largest: int) -> RoomFound:
    """The disks of memory have room."""
    return ROOMY


def _epoch() -> int:
    return 0


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Built by the composition root, in the order of the fields; `node.build` does the rest."""

    wakeup: Wakeup
    headers: ResponseHeaders
    raw: RawNode
    log: LogStore
    state: StateStore
    store: Store
    lessor: Lessor
    hub: WatchHub
    applier: Applier
    members: Members
    alarms: Alarms
    standing: Standing
    flusher: Flushes
    pieces: Pieces = UNMEASURED
    ids: RequestIds
    snapshot_files: StateSnapshotFiles
    snapshot_folder: Path
    fail_stop: Callable[[str], None]
    """Ends the process; it is called with a reason and does not return."""
    on_removed: Callable[[], None] = _nothing
    """Called once when the others say that this member was removed for good."""
    ask_versions: AskVersions = nobody_answers
    ask_hashes: AskHashes = nobody_hashes
    check_intervals: CheckIntervals = NO_CHECKS
    auto_compaction: AutoCompaction | None = None
    look_at_disks: Callable[[int], RoomFound] = _roomy
    """Tells how much room there is; raises OSError when that cannot be told."""
    damage: Damage = NO_DAMAGE
    """What is known of damage to the state."""
    identify: Identify | None = None
    """Says on whose behalf a caller asks; None: all are nobody."""
    unix_ms: Callable[[], int] = _epoch
    """The wall clock, for what is told."""
    quota: QuotaRules = NO_QUOTA
    ask_programs: AskPrograms = nobody_says
