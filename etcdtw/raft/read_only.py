"""Reads that wait until a quorum confirms the leader (ReadIndex, thesis section 6.4).

A read is numbered by the leader; heartbeats carry the newest number as their context, and
an answer confirms every read up to the number it returns.  Numbers only rise, so an answer
to an older heartbeat confirms nothing newer.
"""

from __future__ import annotations

from typing import Final

# Reads waiting at one leader, before and after its first commit together.  A read past it
# is dropped like any lost message: whoever asked asks again.
PENDING_READS_MAX: Final = 4096
CONTEXT_SIZE: Final = 8  # octets of a heartbeat context, little endian


class PendingRead:
    """One read: who asked (0: this member), with which context, at which commit index."""

    __slots__ = ("context", "from_id", "index", "number")

    def __init__(self, number: int, from_id: int, context: bytes, index: int) -> None:
        self.number = number
        self.from_id = from_id
        self.context = context
        self.index = index


class ReadOnly:
    """The reads of one leader in one term, oldest first.

    ``number`` goes on from the term before, so that no number ever means two reads.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.acks: dict[int, int] = {}  # member id -> highest number it has answered
        self._queue: list[PendingRead] = []

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, self_id: int, from_id: int, context: bytes, commit_index: int) -> None:
        """Queue a read at ``commit_index``; the leader itself confirms it at once."""
        self.number += 1
        self._queue.append(PendingRead(self.number, from_id, context, commit_index))
        self.acks[self_id] = self.number

    def heartbeat_context(self) -> bytes:
        """Return what the next heartbeat is to carry; empty when no read waits."""
        return self.number.to_bytes(CONTEXT_SIZE, "little") if self._queue else b""

    def acknowledge(self, member_id: int, context: bytes) -> None:
        """Take a heartbeat answer.  A context this leader never made counts for nothing."""
        number = int.from_bytes(context, "little")
        if len(context) == CONTEXT_SIZE and number <= self.number:
            self.acks[member_id] = max(number, self.acks.get(member_id, 0))

    def release(self, number: int) -> list[PendingRead]:
        """Remove and return the reads numbered up to ``number``, oldest first."""
        count = 0
        for read in self._queue:
            if read.number > number:
                break
            count += 1
        released = self._queue[:count]
        del self._queue[:count]
        return released
