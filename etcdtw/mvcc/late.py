"""Answers of txns whose ranges are too large to be made with them.

The txn itself is over: what it wrote is written.  Each such range is read afterwards, in slices, at
the revision before the txn with what the txn had written until then laid over it.  A compaction
may take that revision away meanwhile; then there is no answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Final, Protocol

from etcdtw.mvcc.backend import Backend
from etcdtw.mvcc.compare import Path, choose_path_steps
from etcdtw.mvcc.slices import SLICE_OCTETS_MAX, RangeSlices, Views, slice_range
from etcdtw.mvcc.views import View, Writes, WrittenView
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import encode_varint
from etcdtw.wire.record import Record
from etcdtw.wire.requests import Txn

CHANGED_MAX: Final = 10_000  # keys that a txn changed: of more, views are read from history
PART_OVERHEAD: Final = 64  # octets of Python objects that a part costs


class LateRange:
    """One range: what it asks, the octets of its header, and where it reads.

    ``revision`` is the one before the txn, or the older one that it names; ``writes`` what the txn
    had written then, or None.
    """

    __slots__ = ("head", "request", "revision", "writes")

    def __init__(
        self, request: pb.RangeRequest, head: bytes, revision: int, writes: Writes | None
    ) -> None:
        self.request = request
        self.head = head
        self.revision = revision
        self.writes = writes


class LateTxn:
    """The body of a TxnResponse: octets that are complete, and what is not."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[bytes | LateRange | LateTxn]) -> None:
        self.parts = parts


class LateAnswer:
    """The body of a TxnResponse in pieces: joined, the results of `step` are the body.

    ``view``: at the revision before the txn.  To be made before anything else is written.
    """

    def __init__(self, views: Views, view: View, txn: LateTxn) -> None:
        self._views = views
        self._view = view
        self.revision = view.revision
        self._slices: RangeSlices | None = None
        self._finished_octets = 0
        # It knows this answer: a circle, which no end of a client may leave to the collector.
        self._steps: Generator[None, None, tuple[list[bytes], int]] | None = self._render(txn)
        self._parts: list[bytes] = []
        self._next = 0
        self.is_finished = False

    @property
    def held(self) -> int:
        """About how many octets are kept back: all, until the last range is read."""
        slices = self._slices
        return self._finished_octets + (slices.held if slices is not None else 0)

    def close(self) -> None:
        """Let go of everything: no step follows."""
        self.is_finished = True
        self._steps = None
        self._view.close()
        if self._slices is not None:
            self._slices.close()

    def step(self) -> bytes | None:
        """Return the next octets of the body (maybe none), or None behind the end.

        Raises `CompactedError`; the answer must be dropped then.
        """
        if self.is_finished:
            return None
        if self._steps is not None:
            try:
                next(self._steps)
            except StopIteration as end:
                self._steps = None
                self._parts, _ = end.value
                self._finished_octets = sum(map(len, self._parts))
                self._finished_octets += PART_OVERHEAD * len(self._parts)
            return b""
        return self._next_part()

    def _next_part(self) -> bytes:
        size = 0
        first = self._next
        parts = self._parts
        while self._next < len(parts) and size < SLICE_OCTETS_MAX:
            size += len(parts[self._next])
            self._finished_octets -= len(parts[self._next]) + PART_OVERHEAD
            self._next += 1
        part = b"".join(parts[first : self._next])
        parts[first : self._next] = [b""] * (self._next - first)
        if self._next == len(parts):
            self.close()
        return part

    def _render(self, txn: LateTxn) -> Generator[None, None, tuple[list[bytes], int]]:
        """Return the octets of ``txn`` in parts, and how many they are."""
        found: list[bytes] = []
        total = 0
        for part in txn.parts:
            if isinstance(part, bytes):
                found.append(part)
                total += len(part)
                continue
            if isinstance(part, LateRange):
                body, size = yield from self._render_range(part)
                head = b"\x0a%b%b" % (encode_varint(len(part.head) + size), part.head)
            else:
                body, size = yield from self._render(part)
                # The header of a nested txn is there, and empty.
                head = b"\x22%b\x0a\x00" % encode_varint(size + 2)
            head = b"\x1a%b%b" % (encode_varint(len(head) + size), head)
            found.append(head)
            found += body
            total += len(head) + size
        return found, total

    def _render_range(self, late: LateRange) -> Generator[None, None, tuple[list[bytes], int]]:
        view = self._view
        if late.revision != view.revision:
            view = self._views.open_view(late.revision)
        elif late.writes is not None:
            view = WrittenView(view, late.writes)
        self._slices = slices = slice_range(view, late.request, view is not self._view)
        found: list[bytes] = []
        size = 0
        while True:
            part = slices.step()
            if part is None:
                break
            if part:
                found.append(part)
                size += len(part)
                self._finished_octets += len(part) + PART_OVERHEAD
            yield
        self._slices = None
        return found, size


class LateRead:
    """Opens the late answer of a txn that was run at ``revision``; implements `applied.Late`.

    ``changes_count``: how many keys the txn changed.
    """

    __slots__ = ("_backend", "_changes_count", "_revision", "_store", "_txn")

    def __init__(
        self, store: TxnViews, backend: Backend, txn: LateTxn, revision: int, changes_count: int
    ) -> None:
        self._store = store
        self._backend = backend
        self._txn = txn
        self._revision = revision
        self._changes_count = changes_count

    def open(self) -> LateAnswer:
        """Begin to read it."""
        changed: list[bytes] | None = None
        if 0 < self._changes_count <= CHANGED_MAX:
            main = self._revision + 1
            changes = self._backend.changes_from(main, 0, main, CHANGED_MAX)
            changed = [Record(change.record).key for change in changes]
        view = self._store.open_view(self._revision, changed)
        return LateAnswer(self._store, view, self._txn)


class MadeAnswer:
    """An answer that is made, too large to be joined; implements `applied.Late` and `Slices`."""

    __slots__ = ("_parts", "held", "revision")

    def __init__(self, parts: list[bytes], revision: int) -> None:
        self._parts = deque(parts)
        self.revision = revision
        self.held = sum(map(len, parts))

    def open(self) -> MadeAnswer:
        return self

    def close(self) -> None:
        self._parts.clear()
        self.held = 0

    def step(self) -> bytes | None:
        """Return the next part of the body, or None behind the end."""
        if not self._parts:
            return None
        part = self._parts.popleft()
        self.held -= len(part)
        return part


class TxnViews(Views, Protocol):
    """The store, as late answers need it."""

    def open_view(self, revision: int, changed: list[bytes] | None = None) -> View: ...

    def answer_late(self, request: Txn, path: Path, revision: int) -> LateTxn: ...


class LateTxnRead:
    """A read-only txn of which even the compares take steps; implements `applied.Late`."""

    __slots__ = ("_request", "_store")

    def __init__(self, store: TxnViews, request: Txn) -> None:
        self._store = store
        self._request = request

    def open(self) -> TxnSlices:
        """Begin to read it."""
        return TxnSlices(self._store, self._request)


class TxnSlices:
    """The body of a read-only txn's response in pieces, all of it at one revision.

    A step raises an `MvccError` when the txn is refused, too.
    """

    def __init__(self, store: TxnViews, request: Txn) -> None:
        self._store = store
        self._request = request
        self._view = store.open_view(store.revision)
        self._compares = choose_path_steps(self._view, request, {})
        self._answer: LateAnswer | None = None
        self.revision = self._view.revision

    @property
    def held(self) -> int:
        """About how many octets are kept back yet."""
        answer = self._answer
        return 0 if answer is None else answer.held

    def close(self) -> None:
        """Let go of everything: no step follows."""
        self._view.close()
        if self._answer is not None:
            self._answer.close()

    def step(self) -> bytes | None:
        """Return the next octets of the body (maybe none), or None behind the end."""
        answer = self._answer
        if answer is not None:
            return answer.step()
        try:
            next(self._compares)
        except StopIteration as end:
            txn = self._store.answer_late(self._request, end.value, self.revision)
            self._answer = LateAnswer(self._store, self._view, txn)
        return b""
