"""How far members lag behind the log's end, in octets, and whether a leader waits for one.

What a log keeps for those that lag is bounded by octets, and by less where its disk is tight: then
a follower that is left further behind needs a snapshot, for which such a disk has no room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from etcdtw.raft.storage import LogStore

MARKS_MAX: Final = 64
FAR: Final = 1 << 62
AHEAD_OCTETS_MAX: Final = 8 << 20
"""So far may a leader whose log's disk is tight be ahead of a follower: half of what is at hand."""
TAKEN_OCTETS_MIN: Final = 1 << 20
TAKEN_WITHIN_MS: Final = 1_000
"""A follower that is left behind is waited for while it takes so many octets within that time."""
WAITED_MAX_MS: Final = 5_000
"""So long in all, until it has come near: the others do not need it, and their clients, whose
proposals wait meanwhile, give up two seconds later."""


class Mark(NamedTuple):
    """Where the log ended at a time, and the octets appended until then."""

    last_index: int
    octets: int
    ms: int


class LogMarks:
    """Where the newest octets of the log begin, noted in steps of a part of their bound.

    ``octets_max``: of the newest entries, what stays for others where there is room; 0: none.
    """

    def __init__(self, log_store: LogStore, octets_max: int) -> None:
        self._log_store = log_store
        self._octets_max = octets_max
        self._step = max(1, octets_max // MARKS_MAX)
        # What was found at the start is one piece: when it came is not known.
        self._marks: deque[Mark] = deque([Mark(log_store.first_index() - 1, 0, 0)])
        """Oldest first; behind the first there are no more octets than the bound."""

    def __len__(self) -> int:
        return len(self._marks)

    @property
    def octets(self) -> int:
        return self._log_store.appended_octets()

    def look(self, now_ms: int) -> None:
        """Note where the log ends now, and forget what is too far back."""
        marks, octets = self._marks, self._log_store.appended_octets()
        if not marks or octets - marks[-1].octets >= self._step:
            marks.append(Mark(self._log_store.last_index(), octets, now_ms))
        while marks and octets - marks[0].octets > self._octets_max:
            marks.popleft()

    def bound(self, octets_max: int) -> int:
        """Return the oldest index noted with no more octets behind it, nor than the bound."""
        least = self._log_store.appended_octets() - octets_max
        found = [one.last_index for one in self._marks if one.octets >= least]
        return found[0] if found else self._log_store.last_index()

    def before(self, ms: int) -> int:
        """Return the newest index noted at ``ms`` or earlier; 0: all came later."""
        old = [one.last_index for one in self._marks if one.ms <= ms]
        return old[-1] if old else 0

    def octets_behind(self, index: int) -> int:
        """Return the octets behind an index, a step too many at the most; too far: `FAR`."""
        for one in reversed(self._marks):
            if one.last_index <= index:
                return self._log_store.appended_octets() - one.octets
        return FAR


class FollowerWait:
    """Whether the leader of a tight log is too far ahead of a follower that takes entries.

    One that takes little or nothing is not waited for, nor one that does not come near in time.
    """

    def __init__(self, marks: LogMarks) -> None:
        self._marks = marks
        self._taken: dict[int, tuple[int, int, int]] = {}
        """By follower: octets of the log that it held when it last took much, when that was, and
        how long it may still be waited for."""
        self._looked_ms = 0

    def waits(self, now_ms: int, matched: Mapping[int, int]) -> bool:
        """Return whether to wait now; ``matched``: by follower, up to where it holds the log.

        Empty: nobody is to be waited for, and what was known is forgotten.
        """
        passed_ms, self._looked_ms = now_ms - self._looked_ms, now_ms
        if not matched:
            self._taken.clear()
        is_far_ahead = False
        for member_id, index in matched.items():
            lag = self._marks.octets_behind(index)
            held = self._marks.octets - lag
            before, since_ms, left_ms = self._taken.get(member_id, (held, now_ms, WAITED_MAX_MS))
            if lag <= AHEAD_OCTETS_MAX:
                left_ms = WAITED_MAX_MS
            if lag <= AHEAD_OCTETS_MAX or held - before >= TAKEN_OCTETS_MIN:
                before, since_ms = held, now_ms
            takes = now_ms - since_ms < TAKEN_WITHIN_MS
            if takes and left_ms > 0 and AHEAD_OCTETS_MAX < lag < FAR:
                is_far_ahead = True
                left_ms -= passed_ms
            self._taken[member_id] = before, since_ms, left_ms
        return is_far_ahead
