"""Log lines that tell how large the state is: etcd's words and fields, which tools know."""

from __future__ import annotations

from typing import Final, Protocol

from twisted.logger import Logger

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")


class Sized(Protocol):
    """What is told of; `State` is one."""

    @property
    def size_allocated(self) -> int: ...
    @property
    def size_in_use(self) -> int: ...


class StateSizes:
    """Tells how large a state is when something was done to it."""

    log = Logger()

    def __init__(self, state: Sized) -> None:
        self._state = state

    def compacted(self, revision: int, took_s: float, rows: int) -> None:
        """A compaction has ended; ``rows`` were deleted."""
        facts = {
            "compact-revision": revision,
            "took": f"{took_s * 1000:.3f}ms",
            "number-of-keys-compacted": rows,
        }
        self.log.info("finished scheduled compaction", **facts, **self._sizes())

    def not_defragmented(self, threshold: int) -> None:
        """--bootstrap-defrag-threshold-megabytes is set: freed pages are reused without it."""
        bounds = {
            "bootstrap-defrag-threshold-bytes": threshold,
            "bootstrap-defrag-threshold": octets_text(threshold),
        }
        self.log.info("Skipping defragmentation", **self._sizes(), **bounds)

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
