"""What users and roles need of others."""

from __future__ import annotations

from typing import Protocol

from etcdtw.wire.entry_header import Asker


class Buckets(Protocol):
    """etcd's small tables, as apply writes them."""

    def bucket_get(self, bucket: bytes, key: bytes) -> bytes | None: ...

    def bucket_put(self, bucket: bytes, key: bytes, value: bytes) -> None: ...

    def bucket_delete(self, bucket: bytes, key: bytes) -> None: ...

    def bucket_items(self, bucket: bytes) -> list[tuple[bytes, bytes]]:
        """Return the bucket's content in key order."""
        ...


class Attachments(Protocol):
    """Which keys are attached to leases."""

    def attached(self, lease_id: int) -> list[bytes]: ...

    def has_attached(self, lease_id: int, count: int) -> bool:
        """Whether ``count`` keys or more are attached to a lease, or were until lately."""
        ...

    def attached_durable(
        self, lease_id: int, position: bytes, limit: int
    ) -> tuple[list[bytes], bytes]:
        """Return up to ``limit`` keys and where to go on, empty behind the last.

        Complete when everything that was done is durable.
        """
        ...


class Tokens(Protocol):
    """Whom tokens name."""

    def asker_of(self, token: bytes, revision: int, address: str) -> Asker | None:
        """Return on whose behalf a call with ``token`` asks; None: it is none.

        ``revision``: that of users and roles, for tokens that do not bear their own.
        ``address``: where the call comes from.
        """
        ...


class TokenEvents(Protocol):
    """Hears which simple tokens begin and end.  Each member has its own; they are no state."""

    def assigned(self, token: str, user: str) -> None: ...

    def user_gone(self, user: str) -> None:
        """Tokens of ``user`` are over: he was deleted, or has another password."""
        ...

    def disabled(self) -> None:
        """All tokens are over."""
        ...


class NoTokens:
    """Nobody keeps tokens."""

    def assigned(self, token: str, user: str) -> None:
        """Forget it."""

    def user_gone(self, user: str) -> None:
        """There are none."""

    def disabled(self) -> None:
        """There are none."""
