"""Tests that are neither ``integration`` nor ``processes`` start no process: `make fast` is theirs.

It is Python that tells (an audit hook), so nothing can start one unseen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STARTS: Final = frozenset(
    ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system")
)


class _Hook:
    is_installed = False
    forbids = False

    def look(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.forbids and event in STARTS:
            raise AssertionError(f"{event}: mark what starts processes `processes`")


_hook: Final = _Hook()


@contextmanager
def no_processes() -> Iterator[None]:
    """Within, whatever starts a process fails."""
    if not _hook.is_installed:
        _hook.is_installed = True
        sys.addaudithook(_hook.look)  # for the rest of this process's life
    _hook.forbids = True
    try:
        yield
    finally:
        _hook.forbids = False
