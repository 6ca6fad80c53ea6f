"""The loop of one member: its turns, one after the other, and what it does when one fails."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.node.loop.turn import Turn
from etcdtw.node.standing import Standing
from etcdtw.raft.raw_node import RawNode


class Loop:
    """Runs turns when they are asked for.  ``fail_stop`` ends the process."""

    log = Logger()

    def __init__(
        self,
        raw: RawNode,
        standing: Standing,
        wakeup: Wakeup,
        turn: Turn,
        fail_stop: Callable[[str], None],
    ) -> None:
        self._raw = raw
        self._standing = standing
        self._wakeup = wakeup
        self._turn = turn
        self._fail_stop = fail_stop
        self._is_starting = False

    def start(self) -> None:
        """Apply what the log has committed already, and go on."""
        self._is_starting = True
        self._wakeup.start(self._run)

    def _run(self) -> None:
        try:
            more = self._turn.run(self._wakeup.time_ms())
        except Exception as error:
            if self._standing.damage:
                # Nothing is applied any more; the log goes on.
                self.log.warn(
                    "left undone, as this member's state is damaged: {error}", error=error
                )
                self._turn.give_up()
                return
            # A broken invariant: what this member would say from here on may be wrong.
            self.log.failure("a turn failed")
            self._fail_stop("a turn failed; report this with the lines above")
            return
        raw = self._raw
        if self._is_starting and self._turn.applied_index >= raw.commit_index:
            self._is_starting = False
            if raw.configuration.voters == {raw.id}:
                # A lone voter campaigns at once: there is nobody to wait for.
                raw.campaign()
                more = True
        if more:
            self._wakeup.wake()
