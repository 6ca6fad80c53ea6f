"""What the watch hub needs of the store and of the state behind it."""

from __future__ import annotations

from typing import Protocol

from etcdtw.mvcc.backend import Change
from etcdtw.mvcc.watch.fan_out import Event


class WatchBackend(Protocol):
    """The part of `mvcc.backend.Backend` that watching needs."""

    def get_at(self, key: bytes, revision: int) -> bytes | None: ...
    def changes_from(
        self, main: int, sub: int, last: int, limit: int, octets_max: int
    ) -> list[Change]: ...


class WatchSource(Protocol):
    """The store whose changes are watched."""

    has_watchers: bool
    """Set by the hub: whether changes have to be collected for `WatchHub.notify`."""

    @property
    def revision(self) -> int:
        """The latest main revision; `WatchHub.notify` has been told of it."""
        ...

    @property
    def compact_revision(self) -> int: ...

    def take_events(self) -> list[Event]:
        """Return and forget what was collected."""
        ...
