"""The sweep of a running member's state, in its writer process: a step, then a long rest.

One pass takes about `SWEEP_INTERVAL_S`, however large the state is, and the next one follows.  A
wrong row of `current` is mended from `history` and `key`; everything else is told.  Where it is
the disk or the map that lacks room, nothing is damaged: it is tried again later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import lmdb

from etcdtw.storage.disk.directory import DataDirError
from etcdtw.storage.disk.page_check import PagesDamagedError, look_at_pages
from etcdtw.storage.integrity.sweep import (
    FINDINGS_MAX,
    STEP_ROWS,
    Finding,
    is_for_later,
    mend_current,
    row_count,
    sweep,
)
from etcdtw.storage.rows.codec import TABLE_CURRENT, TABLE_PRIVATE, StateCorruptionError
from etcdtw.storage.rows.tables import Tables

SWEEP_INTERVAL_S: Final = 86_400.0
LOOK_INTERVAL_S: Final = 10.0  # from one look at branch pages to the next; 20 ms for 1 M keys
LOOK_GROWTH_PAGES_MAX: Final = 64  # of the file, as pages wait for a look; then it is given up
RETRY_S: Final = 60.0  # after what was not to be done for want of room
POSTPONED_MAX: Final = 64  # rows that wait for it; the next pass finds the others
REST_S_MIN: Final = 0.02  # after a step of some 2 ms: however large the state, a tenth of the time

MEND: Final = "mend"
MENDED: Final = "mended"
DAMAGED: Final = "damaged"
SWEPT: Final = "swept"


class _Look:
    """One look at the pages of one view, which is kept as it is meanwhile."""

    def __init__(self, env: lmdb.Environment) -> None:
        self._env = env
        self._last_page = env.info()["last_pgno"]
        self._view = env.begin()
        self._steps = look_at_pages(Path(env.path()), 0, self._view.id())

    def step(self) -> bool:
        """Do one; return whether there are more.  Raises `DataDirError`."""
        for _ in self._steps:
            return True
        return False

    @property
    def is_costly(self) -> bool:
        """Whether the file has grown: pages that were freed wait for this view."""
        grown: int = self._env.info()["last_pgno"] - self._last_page
        return grown >= LOOK_GROWTH_PAGES_MAX

    def end(self) -> None:
        self._view.abort()
        self._steps.close()


class Sweeper:
    """Passes over one state, without end."""

    def __init__(
        self,
        tables: Tables,
        answer: Callable[[tuple[Any, ...]], None],
        seconds: Callable[[], float],
        interval_s: float = SWEEP_INTERVAL_S,
        make_anew: Callable[[Tables, bytes], None] = mend_current,
    ) -> None:
        """``tables`` stays the same object, whatever file it stands on; 0 s: no sweep."""
        self._tables = tables
        self._answer = answer
        self._seconds = seconds
        self._interval_s = interval_s
        self._make_anew = make_anew
        self._is_hurried = False
        self.start_over()

    def start_over(self) -> None:
        """Begin with another state."""
        self._postponed: dict[bytes, None] = {}
        self._retry_due_s = 0.0
        self._look: _Look | None = None
        self._look_due_s = self._seconds() + LOOK_INTERVAL_S
        self._start_pass()

    def _start_pass(self) -> None:
        self._steps: Iterator[Finding | None] | None = None
        self._pause_s = REST_S_MIN
        self._findings = 0
        self._rows = 0
        self._begun_s = self._due_s = self._seconds()

    def hurry(self) -> None:
        """Something is wrong: do one pass at once, a step after the other."""
        self._start_pass()
        self._is_hurried = True

    @property
    def rest_s(self) -> float | None:
        """How long until a step is due; None: none ever is."""
        due_s = [self._retry_due_s] if self._postponed else []
        if self._interval_s or self._is_hurried:
            due_s.append(self._due_s)
        if self._interval_s:
            due_s.append(self._look_due_s)
        return max(min(due_s) - self._seconds(), 0.0) if due_s else None

    def step(self) -> None:
        """Do the step that is due."""
        now_s = self._seconds()
        if self._postponed and now_s >= self._retry_due_s:
            self._retry()
        elif self._interval_s and now_s >= self._look_due_s:
            self._look_on()
        else:
            self._sweep()

    def _sweep(self) -> None:
        try:
            if self._steps is None:
                self._begin()
            assert self._steps is not None
            for finding in self._steps:
                if finding is None:
                    rest_s = REST_S_MIN if self._is_hurried else self._pause_s
                    self._due_s = self._seconds() + rest_s
                    return
                self._findings += 1
                if self._findings <= FINDINGS_MAX:
                    self._found(finding)
        except lmdb.Error as error:
            if not is_for_later(error):
                raise
            self._steps = None  # the pass begins anew
            self._due_s = self._seconds() + RETRY_S
            return
        self._end()

    def mend(self, name: bytes) -> None:
        """Make a row of `current` what `history` says, tell, and look for what else is wrong."""
        if self._mend(name) and not self._is_hurried:
            self.hurry()

    def _mend(self, name: bytes) -> bool:
        """Mend a row and tell, or have it wait for room; return whether it is mended."""
        try:
            self._make_anew(self._tables, name)
        except (StateCorruptionError, lmdb.Error) as error:
            if not is_for_later(error):
                self._answer((MENDED, name, str(error)))
            elif len(self._postponed) < POSTPONED_MAX:
                self._postponed[name] = None
                self._retry_due_s = self._seconds() + RETRY_S
            return False
        self._answer((MENDED, name, ""))
        return True

    def _retry(self) -> None:
        """Mend what waits, up to the first row for which there is still no room."""
        self._retry_due_s = self._seconds() + RETRY_S
        for name in list(self._postponed):
            del self._postponed[name]
            self._mend(name)
            if name in self._postponed:
                return

    def give_way(self) -> None:
        """Give up a look at pages: its view must not outlive the environment."""
        if self._look is not None:
            self._end_look()

    def give_way_if_costly(self) -> None:
        """Give it up before a commit if its view keeps too many pages from being used anew."""
        if self._look is not None and self._look.is_costly:
            self._end_look()

    def _look_on(self) -> None:
        """See whether the branch pages still lead to pages that are in use, each once."""
        try:
            if self._look is None:
                self._look = _Look(self._tables.env)
            if self._look.step():
                self._look_due_s = self._seconds() + REST_S_MIN
                return
        except PagesDamagedError as error:
            self._answer((DAMAGED, error.table or TABLE_PRIVATE, b"", str(error)))
        except (DataDirError, lmdb.Error):
            pass  # it cannot be read just now; whoever commits will say so
        self._end_look()

    def _end_look(self) -> None:
        self._look_due_s = self._seconds() + LOOK_INTERVAL_S
        look, self._look = self._look, None
        if look is not None:
            look.end()

    def _begin(self) -> None:
        self._begun_s = self._seconds()
        self._rows = row_count(self._tables)
        steps = self._rows / STEP_ROWS + len(self._tables.handles)
        self._pause_s = max(self._interval_s / steps, REST_S_MIN)
        self._findings = 0
        self._steps = sweep(self._tables)

    def _end(self) -> None:
        now_s = self._seconds()
        self._answer((SWEPT, self._rows, now_s - self._begun_s, self._findings))
        self._steps = None
        self._is_hurried = False
        self._due_s = max(self._begun_s + self._interval_s, now_s + REST_S_MIN)

    def _found(self, finding: Finding) -> None:
        if finding.table == TABLE_CURRENT and finding.name:
            self._mend(finding.name)
        else:
            self._answer((DAMAGED, *finding))
