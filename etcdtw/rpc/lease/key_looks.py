"""Looks at all keys of a lease: may somebody have them, and which are they?

A lease may have a million keys: what is more than a few waits in the line of long reads.  A look
that ends knows the keys of that moment (`mvcc.attached_walk`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from etcdtw.apply.errors import TooManyRequestsError
from etcdtw.auth.key_check import KeyCheck
from etcdtw.grpc.call import Call
from etcdtw.mvcc.attached_walk import AttachedWalk
from etcdtw.mvcc.backend import Backend
from etcdtw.rpc.kv.read_queue import ReadQueue
from etcdtw.wire.encode import encode_varint

FEW_KEYS: Final = 200
"""Looked at at once: 0.1 ms."""
STEP_KEYS: Final = 1_000
"""Looked at, or written into an answer, before others are served."""
LOOKS_MAX: Final = 16
"""Under way at once on a member: each hears of every key that comes to its lease or leaves it, and
may hold all keys of it.  Others wait."""
TAG_KEYS: Final = b"\x2a"
"""Of a LeaseTimeToLiveResponse."""

Ended = Callable[["Exception | None", "KeyLook"], None]


class KeyLooks:
    """What the looks of one member share."""

    def __init__(self, reads: ReadQueue, backend: Backend) -> None:
        self.reads = reads
        self.backend = backend
        self.count = 0
        """Looks in the line of long reads that have begun."""


class KeyLook:
    """One look; implements `read_queue.ReadTask`.

    check   asked of all keys; None: whoever asks may have them
    lists   the answer is to name the keys: they are in ``parts`` at the end, encoded
    told    called at the moment whose keys they are, before they are encoded
    ended   called once, at the end
    """

    def __init__(
        self,
        looks: KeyLooks,
        lease_id: int,
        check: KeyCheck | None,
        ended: Ended,
        *,
        lists: bool = False,
        told: Callable[[], None] | None = None,
    ) -> None:
        self._looks = looks
        self._lease_id = lease_id
        self._check = check
        self._ended = ended
        self._lists = lists
        self._told = told
        self._call: Call | None = None
        self._walk: AttachedWalk | None = None
        self._has_place = False
        self._seen: AttachedWalk | None = None  # when it is over, and its keys are to be encoded
        self._keys: deque[list[bytes]] = deque()
        self.count = 0
        """Keys that were seen; some of them may be gone again."""
        self.parts: list[bytes] = []
        """The keys as fields of a LeaseTimeToLiveResponse."""

    def begin(self, call: Call | None) -> None:
        """Look at once if the keys are few, or get in line; ``call`` None: it is a peer's."""
        if not self._step(FEW_KEYS):
            return
        # From the beginning, when it has a place: until then it holds nothing.
        self._close()
        self._call = call
        reads = self._looks.reads
        if call is None:
            reads.work_on(self)
        elif not reads.go_on(call, self):
            self.give_up(TooManyRequestsError())

    @property
    def is_blocked(self) -> bool:
        """Whether there are too many looks; not when nobody waits for this one."""
        if self._has_place or (self._call is not None and not self._call.is_open):
            return False
        return self._looks.count >= LOOKS_MAX

    def start(self) -> None:
        """Nothing is to be done first."""

    def step(self) -> bool:
        """Look at some keys, or encode some; return whether there is more to do."""
        if self._call is not None and not self._call.is_open:
            self._close()
            return False
        if not self._has_place:
            self._has_place = True
            self._looks.count += 1
        return self._step(STEP_KEYS)

    def give_up(self, error: Exception) -> None:
        """There is no place for it, or a defect."""
        self._end(error)

    def _step(self, limit: int) -> bool:
        if self._seen is not None:
            return self._encode(self._seen)
        walk = self._walk
        if walk is None or walk.is_void:
            walk = self._walk = self._looks.backend.walk_attached(self._lease_id)
            self._keys.clear()
            self.count = 0
        keys = walk.step(limit)
        refusal = None if self._check is None else self._check.refusal(keys)
        if refusal is not None:
            self._end(refusal)
            return False
        self.count += len(keys)
        if self._lists:
            self._keys.append(keys)
        return self._looked_at(walk) if walk.is_done else True

    def _looked_at(self, walk: AttachedWalk) -> bool:
        """All keys were seen: the answer is about this moment."""
        walk.close()
        self._walk = None
        if self._told is not None:
            self._told()
        if not self._lists:
            self._end(None)
            return False
        if self.count > STEP_KEYS:
            self._seen = walk
            return True
        keys = walk.kept([key for some in self._keys for key in some]) + walk.came_to_stay()
        self.parts.append(_fields(sorted(keys)))
        self._end(None)
        return False

    def _encode(self, walk: AttachedWalk) -> bool:
        if self._keys:
            self.parts.append(_fields(walk.kept(self._keys.popleft())))
            return True
        self.parts.append(_fields(walk.came_to_stay()))
        # Nobody may have lost the right to see them meanwhile.
        self._end(None if self._check is None else self._check.refusal([]))
        return False

    def _end(self, error: Exception | None) -> None:
        self._close()
        self._ended(error, self)

    def _close(self) -> None:
        """Hear no more, hold no more, and leave the place to others."""
        walk, self._walk, self._seen = self._walk, None, None
        self._keys.clear()
        if walk is not None:
            walk.close()
        if self._has_place:
            self._has_place = False
            self._looks.count -= 1


def _fields(keys: list[bytes]) -> bytes:
    return b"".join([b"%b%b%b" % (TAG_KEYS, encode_varint(len(key)), key) for key in keys])
