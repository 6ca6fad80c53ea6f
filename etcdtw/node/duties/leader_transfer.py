"""Handing the leadership over on request, and waiting until it has happened.

Raft gives up after one election timeout; who asked is told then, where etcd lets it wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from etcdtw.apply.errors import StoppedError, TooManyRequestsError, TransferTimeoutError
from etcdtw.grpc.call import Call
from etcdtw.raft.raw_node import RawNode

if TYPE_CHECKING:
    from etcdtw.node.node import Node

TRANSFERS_MAX: Final = 16
"""Requests waiting at once, past which new ones are refused."""
ELECTIONS_MAX: Final = 3
"""Election timeouts after which a request that nothing has answered is given up."""

TransferDone = Callable[[Call, Exception | None], None]


class LeaderTransfers:
    """Who waits for which member to lead."""

    def __init__(self, node: Node, raw: RawNode) -> None:
        self._node = node
        self._raw = raw
        self._waiting: list[tuple[int, int, Call, TransferDone]] = []
        node.on_tick.append(self.look)

    def start(self, target: int, call: Call, done: TransferDone) -> None:
        """Hand over to ``target``, a voter; ``done(call, error)`` is called when it leads."""
        if self._node.is_stopping:
            done(call, StoppedError())
            return
        if target == self._node.leader_id:
            done(call, None)
            return
        if len(self._waiting) >= TRANSFERS_MAX:
            done(call, TooManyRequestsError())
            return
        self._raw.transfer_leader(target)
        self._waiting.append((target, self._node.now_ms, call, done))
        self._node.wake()

    def look(self, now_ms: int) -> None:
        """Answer whom there is something to tell (at each tick)."""
        if not self._waiting:
            return
        config = self._node.config
        patience_ms = ELECTIONS_MAX * config.election_timeout_ms
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            target, started_ms, call, done = one
            leader = self._node.leader_id
            if leader == target:
                done(call, None)
            elif not call.is_open:
                continue
            elif (
                (leader == self._node.member_id and self._raw.transfer_target != target)
                or (leader not in (0, self._node.member_id))
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
