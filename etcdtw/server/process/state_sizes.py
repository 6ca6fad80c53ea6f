"""Log lines that tell how large the state is: etcd's words and fields, which tools know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from etcdtw.mvcc.compaction_hashes import CompactionHashes

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")


class Sized(Protocol):
    """What is told of; `State` is one."""

    @property
    def size_allocated(self) -> int: ...
    @property
    def size_in_use(self) -> int: ...
    @property
    def compaction_hashes(self) -> CompactionHashes: ...
    def defragment(self, done: Callable[[str], None]) -> None: ...


class StateSizes:
    """Tells how large a state is when something was done to it."""

    log = Logger()

    def __init__(self, state: Sized) -> None:
        self._state = state

    def compacted(self, revision: int, took_s: float, rows: int) -> None:
        """A compaction has ended; ``rows`` were deleted.

        One that was interrupted by a stop has no hash: some rows are gone unhashed.
        """
        facts: dict[str, object] = {
            "compact-revision": revision,
            "took": f"{took_s * 1000:.3f}ms",
            "number-of-keys-compacted": rows,
        }
        hashed = self._state.compaction_hashes.find(revision)
        if hashed is not None:
            facts["hash"] = hashed.value
        self.log.info("finished scheduled compaction", **facts, **self._sizes())

    def defragment(self, threshold: int, seconds: Callable[[], float]) -> Deferred[None]:
        """Give free pages back to the filesystem if these are ``threshold`` octets or more.

        What keeps it from that keeps nobody from being served (etcd does not start then).
        """
        state = self._state
        if state.size_allocated - state.size_in_use < threshold:
            bounds = {
                "bootstrap-defrag-threshold-bytes": threshold,
                "bootstrap-defrag-threshold": octets_text(threshold),
            }
            self.log.info("Skipping defragmentation", **self._sizes(), **bounds)
            return succeed(None)
        done: Deferred[None] = Deferred()
        began_s, allocated, used = seconds(), state.size_allocated, state.size_in_use
        self.log.info("defragmenting", **self._sizes())

        def defragmented(error: str) -> None:
            if error:
                self.log.warn("failed to defragment", error=error)
            else:
                changes = {
                    "current-db-size-bytes-diff": state.size_allocated - allocated,
                    "current-db-size-in-use-bytes-diff": state.size_in_use - used,
                    "took": f"{(seconds() - began_s) * 1000:.3f}ms",
                }
                self.log.info("finished defragmenting directory", **self._sizes(), **changes)
            done.callback(None)

        state.defragment(defragmented)
        return done

    def _sizes(self) -> dict[str, object]:
        whole, used = self._state.size_allocated, self._state.size_in_use
        return {
            "current-db-size-bytes": whole,
            "current-db-size": octets_text(whole),
            "current-db-size-in-use-bytes": used,
            "current-db-size-in-use": octets_text(used),
        }


def octets_text(octets: int) -> str:
    """Return a size for eyes, as etcd has it: ``16 kB``, ``2.1 GB``."""
    value, power = float(octets), 0
    while value >= 1000 and power < len(_UNITS) - 1:
        value, power = value / 1000, power + 1
    shown = f"{value:.1f}" if power and value < 10 else f"{value:.0f}"
    return f"{shown} {_UNITS[power]}"
