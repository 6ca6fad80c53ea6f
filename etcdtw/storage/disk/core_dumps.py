"""No core of a process that crashes: it would hold keys, values and passwords.

Two things forbid it.  The limit of its size is what is written to a file; a core that the kernel
pipes into a program (systemd-coredump, apport) has no such limit, but none is made of a process
that is not dumpable.  Who is not dumpable cannot be looked into by others of its user, either
(debuggers, py-spy).

Sources: core(5), prctl(2).
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Callable
from typing import Final

PR_SET_DUMPABLE: Final = 4
NONE: Final = (0, 0)
"""The limit here, and that for children: both start with it, and neither can raise it again."""
CORES_ARE_LEFT: Final = "a crash may leave a core with keys and passwords: prctl(2) does not work"

SetLimit = Callable[[int, tuple[int, int]], None]
SetOption = Callable[[int, int], int]
"""prctl's: an option and its value; 0: done."""


def _prctl(option: int, value: int) -> int:
    call = getattr(ctypes.CDLL(None), "prctl", None)
    return -1 if call is None else int(call(option, value, 0, 0, 0))


def forbid_core_dumps(
    set_limit: SetLimit = resource.setrlimit, set_option: SetOption = _prctl
) -> bool:
    """See to it that this process and its children leave no core; return whether that worked."""
    set_limit(resource.RLIMIT_CORE, NONE)
    return set_option(PR_SET_DUMPABLE, 0) == 0


def follow_parent(limit: tuple[int, int] | None = None, set_option: SetOption = _prctl) -> None:
    """In a child: forbid what the parent has forbidden, which a new program begins without.

    ``limit``: of the size of cores; None: what it is.
    """
    if (resource.getrlimit(resource.RLIMIT_CORE) if limit is None else limit) == NONE:
        set_option(PR_SET_DUMPABLE, 0)
