"""``--memory-mlock``: what this process has read of the state stays in memory.

etcd locks its map of the whole file.  Here the map is a reserve of address space, mostly empty:
pages are locked as they are touched, in all maps from now on.  Source: mlockall(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_MEMLOCK, getrlimit
from typing import Final

MCL_CURRENT: Final = 1
MCL_FUTURE: Final = 2
MCL_ONFAULT: Final = 4
FLAGS: Final = MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT

STATUS: Final = Path("/proc/self/status")
CAPABILITIES: Final = "CapEff"
CAP_IPC_LOCK: Final = 1 << 14

LockAll = Callable[[int], int]
"""Calls mlockall(2); returns 0, or the number of the error."""


class MemoryLockError(Exception):
    """The kernel does not let this process lock its memory."""


def lock_memory(lock_all: LockAll | None = None) -> None:
    """Lock all that is touched from now on.  Raises `MemoryLockError`."""
    number = (lock_all or _mlockall)(FLAGS)
    if number:
        raise MemoryLockError(
            f"--memory-mlock: cannot lock memory: {os.strerror(number).lower()}; let this process "
            "have CAP_IPC_LOCK or no limit of locked memory (systemd: LimitMEMLOCK=infinity), or "
            "leave the flag out"
        )


def may_lock(limit: int, status: str) -> bool:
    """Whether a process may lock as much as it likes: its limit, and what proc_pid_status(5) says.

    A limit would let this pass, and the next map fail.
    """
    if limit == RLIM_INFINITY:
        return True
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return bool(int(fields.get(CAPABILITIES, "0"), 16) & CAP_IPC_LOCK)


def _mlockall(flags: int) -> int:
    if not may_lock(getrlimit(RLIMIT_MEMLOCK)[0], STATUS.read_text()):
        return errno.EPERM
    libc = ctypes.CDLL(None, use_errno=True)
    return 0 if libc.mlockall(flags) == 0 else ctypes.get_errno()
