"""What applying one request came to."""

from __future__ import annotations


class Applied:
    """The outcome of one applied entry, as the service that proposed it needs it.

    revision    the store's revision after the entry
    body        the response message without its header (field 1); empty on error
    error       a core exception, or None
    """

    __slots__ = ("body", "error", "revision")

    def __init__(self, revision: int, body: bytes = b"", error: Exception | None = None) -> None:
        self.revision = revision
        self.body = body
        self.error = error

    def __repr__(self) -> str:
        return f"Applied(revision={self.revision}, body={self.body!r}, error={self.error!r})"
