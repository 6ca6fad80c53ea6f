"""What services and pages may use of a member's node: one Protocol for all of them.

Metrics are counters of every part and take the whole `node.Node` (`server/metrics/sources.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from etcdtw.apply.alarms import Alarms
from etcdtw.apply.members import Members
from etcdtw.grpc.call import Call
from etcdtw.lease.lessor import Lessor
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.store import Store
from etcdtw.mvcc.watch.hub import WatchHub
from etcdtw.node.duties.conf_changes import ConfChanges
from etcdtw.node.duties.key_hashes import KeyHashes
from etcdtw.node.duties.leader_transfer import LeaderTransfers
from etcdtw.node.duties.snapshots import Snapshots
from etcdtw.node.intake.seams import StateStore


class Facade(Protocol):
    """One member.  Implemented by `node.node.Node`."""

    # Requests.

    def propose(
        self,
        field: int,
        message: bytes,
        parsed: Any,
        call: Call,
        done: Callable[[Call, Applied], None],
    ) -> None:
        """Put a request into the log; ``done`` gets its outcome, refusals included."""
        ...

    def read(self, call: Call, done: Callable[[Call, Exception | None], None]) -> None:
        """Call ``done(call, None)`` once a read of local state is linearizable."""
        ...

    def linearize(self, done: Callable[[Exception | None], None]) -> None:
        """As `read`, where no client waits: it stands in no line of theirs, and is not timed."""
        ...

    def header(self, revision: int) -> bytes:
        """Return the header of a response as a field, at ``revision``."""
        ...

    # Time.

    @property
    def clock(self) -> IReactorTime: ...

    @property
    def now_ms(self) -> int: ...

    # Who this is, and how it stands.

    @property
    def cluster_id(self) -> int: ...

    @property
    def member_id(self) -> int: ...

    @property
    def term(self) -> int: ...

    @property
    def leader_id(self) -> int:
        """0: no leader is known."""
        ...

    @property
    def is_leader(self) -> bool: ...

    @property
    def is_voter(self) -> bool:
        """Whether this member votes; once it does, that stays so."""
        ...

    @property
    def is_learner(self) -> bool: ...

    @property
    def is_quarantined(self) -> bool:
        """Whether this member's keys are known to differ; its clients were dropped then."""
        ...

    @property
    def is_stopping(self) -> bool: ...

    @property
    def commit_index(self) -> int: ...

    @property
    def applied_index(self) -> int: ...

    def connected_since(self, member_id: int) -> int | None:
        """When another member was connected to, in ms of this clock; None: it is not."""
        ...

    def match_index(self, member_id: int) -> int | None:
        """How much of the log a member holds, as the leader knows; None for a stranger."""
        ...

    # What it holds.

    @property
    def store(self) -> Store: ...

    @property
    def storage(self) -> StateStore: ...

    @property
    def hub(self) -> WatchHub: ...

    @property
    def lessor(self) -> Lessor: ...

    def current_lessor(self) -> Lessor:
        """Return the lessor as of now: what it says before the next tick must hold, too."""
        ...

    @property
    def members(self) -> Members: ...

    @property
    def alarms(self) -> Alarms: ...

    # What it can be asked to do.

    @property
    def hashes(self) -> KeyHashes: ...

    @property
    def snapshots(self) -> Snapshots: ...

    @property
    def conf_changes(self) -> ConfChanges: ...

    @property
    def transfers(self) -> LeaderTransfers: ...
