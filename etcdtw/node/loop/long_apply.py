"""One long entry being applied, a few milliseconds in each turn.

First everything before it becomes durable; then its changes gather out of sight; at last they
are published as one revision.  Knows nothing of what an entry means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.long_entry import Steps, Wait
from etcdtw.node.intake.requests import Waiter
from etcdtw.raft.entry import Entry

WORK_S: Final = 0.003
"""How long a turn works on a long entry; passed by at most one step."""


class HidingState(Protocol):
    """The part of the state that long entries need."""

    def flush(self, done: Callable[[], None]) -> None: ...

    def reveal(self) -> None: ...

    def conceal(self) -> None: ...

    def publish(self) -> None: ...


class LongApply:
    """A long entry, from when it is met to its outcome.  ``wake`` asks for a turn."""

    def __init__(
        self,
        state: HidingState,
        seconds: Callable[[], float],
        wake: Callable[[], None],
        entry: Entry,
        waiter: Waiter | None,
        steps: Steps,
    ) -> None:
        self._state = state
        self._seconds = seconds
        self._wake = wake
        self._steps = steps
        self.entry = entry
        self.waiter = waiter
        self.is_ready = False
        """Whether `work` has something to do: what came before is durable, and others are done."""

    def begin(self) -> None:
        """Bring to disk what came before."""
        self._state.flush(self._begun)

    def _begun(self) -> None:
        self.is_ready = True
        self._wake()

    def work(self, work_s: float) -> Applied | None:
        """Go on for about ``work_s``; return the outcome, or None while there is more to do."""
        assert self.is_ready, "too early"
        until_s = self._seconds() + work_s
        self._state.reveal()
        wait: Wait | None = None
        try:
            while wait is None:
                wait = next(self._steps)
                if self._seconds() >= until_s:
                    break
        except StopIteration as end:
            self._state.publish()
            outcome: Applied = end.value
            return outcome
        self._state.conceal()
        if wait is not None:
            self.is_ready = False
            wait(self._begun)
        return None
