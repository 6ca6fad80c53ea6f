"""A member as its health pages see it: facts of its node, troubles of its duties, a trial read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred, execute

from etcdtw.apply.alarms import alarm_name
from etcdtw.apply.errors import CorruptError
from etcdtw.node.duties.damage import DamageDuty
from etcdtw.node.duties.space import SpaceDuty
from etcdtw.node.facade import Facade
from etcdtw.rpc.errors import status_of
from etcdtw.wire import etcdserverpb as pb

READ_ONE: Final = pb.RangeRequest(key=b"\0", range_end=b"\0", limit=1, keys_only=True)
"""What a health check reads: the first key, whichever it is."""


class ReadFailedError(Exception):
    """A health read failed; its text is what a client would see."""


class MemberHealth:
    """Implements `health.HealthSource` for one member."""

    def __init__(self, node: Facade, damage: DamageDuty, space: SpaceDuty) -> None:
        self._node = node
        self._damage = damage
        self._space = space

    @property
    def has_leader(self) -> bool:
        return self._node.leader_id != 0

    @property
    def is_learner(self) -> bool:
        return self._node.is_learner

    @property
    def alarms(self) -> Sequence[str]:
        return [alarm_name(alarm) for _, alarm in self._node.alarms.active()]

    @property
    def state_trouble(self) -> str:
        return self._damage.trouble()

    @property
    def disk_trouble(self) -> str:
        return self._space.trouble()

    def read(self, linearizable: bool) -> Deferred[None]:
        """Try a read; fails with the error that a client would see."""
        if not linearizable:
            return execute(self._read_one)
        done: Deferred[None] = Deferred(lambda _: None)

        def answer(error: Exception | None) -> None:
            if done.called:
                return
            if error is None:
                execute(self._read_one).chainDeferred(done)
            else:
                done.errback(ReadFailedError(status_of(error)[1]))

        self._node.linearize(answer)
        return done

    def _read_one(self) -> None:
        """Read from the state, disk included, what any client could read."""
        if self._node.is_quarantined:
            raise ReadFailedError(status_of(CorruptError())[1])
        self._node.store.range(READ_ONE)
