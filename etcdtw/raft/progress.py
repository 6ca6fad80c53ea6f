"""A leader's view of one follower: how far it is, and whether it may be sent more.

    Probe      one append at a time, to find where the logs agree
    Replicate  optimistic: a window of appends in flight
    Snapshot   nothing, until the follower has the snapshot

Source: Ongaro's thesis, sections 3.5 and 10.2.1; the snapshot state is etcd's.
"""

from __future__ import annotations

from typing import Final

from etcdtw.raft.inflights import Inflights

PROGRESS_PROBE: Final = 0
PROGRESS_REPLICATE: Final = 1
PROGRESS_SNAPSHOT: Final = 2
PROGRESS_NAMES: Final = ("StateProbe", "StateReplicate", "StateSnapshot")


class Progress:
    """One member as the leader sees it.  Invariant: ``0 <= match_index < next_index``.

    ``sent_commit`` is the highest commit index in a message that the follower may already
    have; ``flow_paused`` holds further appends back until an answer or a heartbeat answer
    arrives; ``recent_active`` means heard from since the last quorum check.
    """

    __slots__ = (
        "flow_paused",
        "inflights",
        "is_learner",
        "match_index",
        "next_index",
        "pending_snapshot",
        "recent_active",
        "sent_commit",
        "state",
    )

    def __init__(self, match_index: int, next_index: int, inflights: Inflights) -> None:
        self.match_index = match_index
        self.next_index = next_index
        self.inflights = inflights
        self.state: int = PROGRESS_PROBE
        self.sent_commit = 0
        self.pending_snapshot = 0
        self.flow_paused = False
        self.recent_active = False
        self.is_learner = False

    def _enter(self, state: int, next_index: int) -> None:
        self.state = state
        self.next_index = next_index
        self.flow_paused = False
        self.pending_snapshot = 0
        self.inflights.reset()

    def become_probe(self) -> None:
        """Go back to one append at a time, just behind what is known to be there."""
        # A snapshot that was sent counts as arrived here: the probe itself will tell.
        self._enter(PROGRESS_PROBE, max(self.match_index, self.pending_snapshot) + 1)
        self.sent_commit = min(self.sent_commit, self.next_index - 1)

    def become_replicate(self) -> None:
        self._enter(PROGRESS_REPLICATE, self.match_index + 1)

    def become_snapshot(self, snapshot_index: int) -> None:
        self._enter(PROGRESS_SNAPSHOT, snapshot_index + 1)
        self.pending_snapshot = snapshot_index
        self.sent_commit = snapshot_index

    def is_paused(self) -> bool:
        return self.flow_paused or self.state == PROGRESS_SNAPSHOT

    def entries_sent(self, count: int, size: int) -> None:
        """Record an append of ``count`` entries, ``size`` octets of payload; 0 is allowed."""
        if self.state == PROGRESS_REPLICATE:
            if count > 0:
                self.next_index += count
                self.inflights.add(self.next_index - 1, size)
            # Into a full window only empty appends go, one per heartbeat answer.
            self.flow_paused = self.inflights.is_full()
        elif count > 0:
            self.flow_paused = True

    def can_bump_commit(self, commit_index: int) -> bool:
        """Return whether an empty append would teach the follower a newer commit index."""
        return self.sent_commit < commit_index and self.sent_commit < self.next_index - 1

    def acknowledge(self, index: int) -> bool:
        """Take an acknowledgement up to ``index``; return False when it says nothing new."""
        if index <= self.match_index:
            return False
        self.match_index = index
        self.next_index = max(self.next_index, index + 1)
        self.flow_paused = False
        return True

    def reject(self, rejected_index: int, hint_index: int) -> bool:
        """Step back after the append behind ``rejected_index`` was refused.

        ``hint_index`` is the highest index at which the logs may still agree.  Returns
        False when the refusal is old: it speaks of a message overtaken since.
        """
        if self.state == PROGRESS_REPLICATE:
            if rejected_index <= self.match_index:
                return False
            self.next_index = self.match_index + 1
        else:
            if rejected_index != self.next_index - 1:
                return False
            self.next_index = max(min(rejected_index, hint_index + 1), self.match_index + 1)
            self.flow_paused = False
        self.sent_commit = min(self.sent_commit, self.next_index - 1)
        return True

    def __repr__(self) -> str:
        words = [
            f"{PROGRESS_NAMES[self.state]} match={self.match_index} next={self.next_index}",
            "learner" if self.is_learner else "",
            "paused" if self.is_paused() else "",
            f"pendingSnap={self.pending_snapshot}" if self.pending_snapshot > 0 else "",
            "" if self.recent_active else "inactive",
        ]
        if len(self.inflights) > 0:
            full = "[full]" if self.inflights.is_full() else ""
            words.append(f"inflight={len(self.inflights)}{full}")
        return " ".join([word for word in words if word])
