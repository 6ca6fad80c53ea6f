"""What the loop needs of the state and of the connections; others implement it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from etcdtw.mvcc.backend import Backend
from etcdtw.mvcc.compaction_hashes import CompactionHashes
from etcdtw.raft.entry import HardState, Snapshot
from etcdtw.raft.message import Message
from etcdtw.storage.state.errands import HashTold


class StateStore(Backend, Protocol):
    """The state as the node drives it and maintenance asks about it."""

    @property
    def revision(self) -> int:
        """The newest main revision."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether the overlay is at its bound: apply has to wait until it drains."""
        ...

    @property
    def applied_durable(self) -> int:
        """The log index up to which the state is on disk."""
        ...

    @property
    def is_committing(self) -> bool:
        """Whether the writer has something to commit, and will say when it has."""
        ...

    @property
    def compaction_hashes(self) -> CompactionHashes: ...

    @property
    def size_allocated(self) -> int:
        """Octets of the file."""
        ...

    @property
    def size_in_use(self) -> int: ...

    @property
    def pending(self) -> tuple[int, int]:
        """Octets, an estimate of what their rows will use, and changes that are not committed."""
        ...

    @property
    def is_compacting(self) -> bool:
        """Whether room is on its way."""
        ...

    def tick(self, now_ms: int) -> None: ...

    def flush(self, done: Callable[[], None]) -> None: ...

    def reveal(self) -> None: ...

    def conceal(self) -> None: ...

    def publish(self) -> None: ...

    def defragment(self, done: Callable[[str], None]) -> None: ...

    def on_compacted(self, revision: int, done: Callable[[], None]) -> None:
        """Call ``done`` once everything below ``revision`` is deleted, durably; maybe at once."""
        ...

    def hash_kv(self, revision: int, compact_revision: int, done: HashTold) -> None: ...

    def hash_all(self, done: HashTold) -> None: ...


class Door(Protocol):
    """Decides what of the peers' messages is stepped, while the disk is not roomy."""

    @property
    def is_short(self) -> bool: ...

    def takes(self, m: Message) -> bool:
        """Whether to step it; otherwise it is lost, as by a network."""
        ...


class Damage(Protocol):
    """What is known of damage to the state."""

    @property
    def proved(self) -> str:
        """Why the state must not be served; empty: nothing is known."""
        ...

    def listen(self, proved: Callable[[], None]) -> None:
        """Call ``proved`` as soon as there is something, before anything is answered."""
        ...


class NoDamage:
    """Of a state in memory."""

    proved = ""

    def listen(self, proved: Callable[[], None]) -> None:
        pass


NO_DAMAGE: Final = NoDamage()


class Flushes(Protocol):
    """Writes each dirty connection's octets, at the end of the turn that holds it."""

    def hold(self) -> None: ...

    def flush(self) -> None: ...


class Installs(Protocol):
    """Puts a leader's snapshot in place of log and state (`duties.snapshots`)."""

    def install(
        self, hard_state: HardState | None, snapshot: Snapshot, done: Callable[[], None]
    ) -> None: ...
