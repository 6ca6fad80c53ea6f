"""What a member keeps in memory beside its state, read anew when a snapshot replaces that."""

from __future__ import annotations

from etcdtw.apply.applier import Applier
from etcdtw.mvcc.store import Store
from etcdtw.mvcc.watch.hub import WatchHub
from etcdtw.node.intake.seams import StateStore


class Caches:
    """The caches of one member."""

    def __init__(self, state: StateStore, store: Store, applier: Applier, hub: WatchHub) -> None:
        self._state = state
        self._store = store
        self._applier = applier
        self._hub = hub

    @property
    def revision(self) -> int:
        """The last one that watchers were told of."""
        return self._store.revision

    def read_anew(self, last_revision: int) -> None:
        """Log and state are those of a snapshot; watchers were told up to ``last_revision``."""
        self._store.restore(self._state.revision)
        self._applier.restore()
        self._hub.store_replaced(last_revision)
