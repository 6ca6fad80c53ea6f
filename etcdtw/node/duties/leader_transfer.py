"""Handing the leadership over on request, and waiting until it has happened.

Raft gives up after one election timeout; who asked is told then, where etcd lets it wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcdtw.apply.errors import StoppedError, TooManyRequestsError, TransferTimeoutError
from etcdtw.grpc.call import Call
from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.node.standing import Standing
from etcdtw.raft.raw_node import RawNode

TRANSFERS_MAX: Final = 16
"""Requests waiting at once, past which new ones are refused."""
ELECTIONS_MAX: Final = 3
"""Election timeouts after which a request that nothing has answered is given up."""

TransferDone = Callable[[Call, Exception | None], None]


class LeaderTransfers:
    """Who waits for which member to lead.

    ``connected_since_ms``: when another member was connected to, None: it is not.
    """

    def __init__(
        self,
        standing: Standing,
        raw: RawNode,
        wakeup: Wakeup,
        connected_since_ms: Callable[[int], int | None],
        election_timeout_ms: int,
    ) -> None:
        self._standing = standing
        self._raw = raw
        self._wakeup = wakeup
        self._connected_since_ms = connected_since_ms
        self._election_timeout_ms = election_timeout_ms
        self._waiting: list[tuple[int, int, Call, TransferDone]] = []

    def hand_over(self) -> int | None:
        """Let the voter lead that is connected for longest; return which one that is.

        None: this member does not lead, or nobody is there to.
        """
        if not self._standing.is_leader:
            return None
        connected = [
            (since_ms, one.member_id)
            for one in self._standing.other_voters()
            if (since_ms := self._connected_since_ms(one.member_id)) is not None
        ]
        if not connected:
            return None
        target = min(connected)[1]
        self._raw.transfer_leader(target)
        self._wakeup.wake()
        return target

    def start(self, target: int, call: Call, done: TransferDone) -> None:
        """Hand over to ``target``, a voter; ``done(call, error)`` is called when it leads."""
        if self._wakeup.is_stopping:
            done(call, StoppedError())
            return
        if target == self._standing.leader_id:
            done(call, None)
            return
        if len(self._waiting) >= TRANSFERS_MAX:
            done(call, TooManyRequestsError())
            return
        self._raw.transfer_leader(target)
        self._waiting.append((target, self._wakeup.time_ms(), call, done))
        self._wakeup.wake()

    def look(self, now_ms: int) -> None:
        """Answer whom there is something to tell (at each tick)."""
        if not self._waiting:
            return
        patience_ms = ELECTIONS_MAX * self._election_timeout_ms
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            target, started_ms, call, done = one
            leader = self._standing.leader_id
            if leader == target:
                done(call, None)
            elif not call.is_open:
                continue
            elif (
                (leader == self._standing.member_id and self._raw.transfer_target != target)
                or (leader not in (0, self._standing.member_id))
                or now_ms - started_ms > patience_ms
            ):
                done(call, TransferTimeoutError())
            else:
                self._waiting.append(one)

    def fail_all(self, error: Exception) -> None:
        """The member stops."""
        waiting, self._waiting = self._waiting, []
        for _, _, call, done in waiting:
            done(call, error)
