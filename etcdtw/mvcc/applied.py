"""What applying one request came to."""

from __future__ import annotations

from typing import Protocol


class Late(Protocol):
    """The rest of a txn's answer."""

    def open(self) -> Slices:
        """Begin to read it: before anything else is applied, and only if somebody waits for it."""
        ...


class Slices(Protocol):
    """A body in pieces, all of it at one revision."""

    revision: int

    @property
    def held(self) -> int:
        """About how many octets are kept back yet."""
        ...

    def step(self) -> bytes | None:
        """Return the next octets of the body (maybe none), or None behind the end.

        About a millisecond of work.  Raises `CompactedError`.
        """
        ...

    def close(self) -> None:
        """Let go of everything: no step follows."""
        ...


class Applied:
    """The outcome of one applied entry, as the service that proposed it needs it.

    revision    the store's revision after the entry
    body        the response message without its header (field 1); empty on error
    error       a core exception, or None
    late        of a txn: what yields the body, which is still to be made; or None
    """

    __slots__ = ("body", "error", "late", "revision")

    def __init__(
        self,
        revision: int,
        body: bytes = b"",
        error: Exception | None = None,
        late: Late | None = None,
    ) -> None:
        self.revision = revision
        self.body = body
        self.error = error
        self.late = late

    def __repr__(self) -> str:
        return f"Applied(revision={self.revision}, body={self.body!r}, error={self.error!r})"
