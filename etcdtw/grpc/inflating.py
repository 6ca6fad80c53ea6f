"""Compressed messages of all calls, inflated in steps, each call in turn.

Whoever sends much waits behind itself.  Knows no call and no connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from etcdtw.grpc.call import INTERNAL, StatusError
from etcdtw.grpc.gzip import MEMBER_OCTETS, STEP_OCTETS, Inflater
from etcdtw.grpc.message import PREFIX_SIZE

WORK_OCTETS_MAX: Final = 8 * STEP_OCTETS
"""What `InflateQueue.step` does in one go: about 2 ms."""
MESSAGE_OVERHEAD: Final = 64
"""Octets that a waiting message costs beside its own."""


DEFECT: Final = StatusError(INTERNAL, "the call failed unexpectedly")


class InflatedCall(Protocol):
    """Whose messages are inflated."""

    def inflated(self, message: bytes) -> None:
        """Take the next message; may raise `StatusError`."""
        ...

    def inflated_all(self) -> None:
        """There are no more.  May raise `StatusError`."""
        ...

    def break_off(self, code: int, message: str) -> None:
        """End: this is what came of it."""
        ...


class Inflating:
    """The messages of one call that are yet to be inflated, oldest first."""

    __slots__ = (
        "_call",
        "_held",
        "_inflater",
        "_is_ending",
        "_messages",
        "_size_max",
        "is_waiting",
    )

    def __init__(self, size_max: int, call: InflatedCall) -> None:
        self._size_max = size_max
        self._call: InflatedCall | None = call
        self._messages: deque[bytes] = deque()
        self._held = 0
        self._inflater: Inflater | None = None
        self._is_ending = False
        self.is_waiting = False
        """In the queue."""

    @property
    def held(self) -> int:
        """Octets of memory that the messages take."""
        return self._held + (0 if self._inflater is None else self._inflater.size)

    def add(self, message: bytes) -> None:
        """Take a message with its prefix, which tells whether it is compressed."""
        self._messages.append(message)
        self._held += len(message) + MESSAGE_OVERHEAD

    def end(self) -> None:
        """No more messages come."""
        self._is_ending = True

    def drop(self) -> None:
        """The call is over: nothing of it is wanted, and it is forgotten."""
        self._call = None
        self._messages.clear()
        self._held = 0
        self._inflater = None
        self._is_ending = False

    def step(self) -> int:
        """Inflate some of the oldest message; returns the octets of work, 0: all is done.

        The last step of a large message delivers it.  What a defect raises is raised here, when
        the call has got its end.
        """
        call = self._call
        if call is None:
            return 0
        try:
            if self._messages:
                return self._step(call, self._messages[0])
            if self._is_ending:
                self._is_ending = False
                call.inflated_all()
        except StatusError as error:
            call.break_off(error.code, error.message)
        except Exception:
            call.break_off(DEFECT.code, DEFECT.message)
            raise
        return 0

    def _step(self, call: InflatedCall, message: bytes) -> int:
        work = MEMBER_OCTETS
        if not message[0]:
            self._pop()
            call.inflated(message[PREFIX_SIZE:])
            return work
        inflater = self._inflater
        if inflater is None:
            inflater = self._inflater = Inflater(message, self._size_max, PREFIX_SIZE)
        if not inflater.is_done:
            work = inflater.step()
        if inflater.is_done:
            self._pop()
            call.inflated(inflater.message())
        return work

    def _pop(self) -> None:
        self._held -= len(self._messages.popleft()) + MESSAGE_OVERHEAD
        self._inflater = None


class InflateQueue:
    """The calls of all connections with something to inflate, each in turn.

    ``on_work`` is called when there is something to do for `step` where there was nothing.
    """

    def __init__(self) -> None:
        self._waiting: deque[Inflating] = deque()
        self._is_told = False
        self.on_work: Callable[[], None] = self._run

    @property
    def has_work(self) -> bool:
        """Whether something waits for `step`."""
        return bool(self._waiting)

    def add(self, inflating: Inflating) -> None:
        """Let a call have its turn, if it does not wait for it already."""
        if inflating.is_waiting:
            return
        inflating.is_waiting = True
        self._waiting.append(inflating)
        if not self._is_told:
            self._is_told = True
            self.on_work()

    def step(self) -> bool:
        """Do a bounded piece of the work; returns whether any is left.

        Raises what a defect raises; the call is ended, the others wait for the next step.
        """
        left = WORK_OCTETS_MAX
        try:
            while self._waiting and left > 0:
                inflating = self._waiting.popleft()
                inflating.is_waiting = False
                work = inflating.step()
                left -= work
                if work and not inflating.is_waiting:
                    inflating.is_waiting = True
                    self._waiting.append(inflating)
        finally:
            self._is_told = self.has_work
        return self._is_told

    def _run(self) -> None:
        """Nobody schedules the work: do it at once."""
        while self.step():
            pass
