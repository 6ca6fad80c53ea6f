"""Memory that is not paged out."""

from __future__ import annotations

import errno
import subprocess
import sys
from resource import RLIM_INFINITY, RLIMIT_MEMLOCK, getrlimit

import pytest

from etcdtw.server.process.memory_lock import FLAGS, STATUS, MemoryLockError, lock_memory, may_lock

LOCKS = """
import mmap, sys
from etcdtw.server.process.memory_lock import lock_memory
lock_memory()
touched = mmap.mmap(-1, 1 << 20)
touched[: 1 << 19] = b"x" * (1 << 19)
locked = [line for line in open("/proc/self/status") if line.startswith("VmLck")]
print(int(locked[0].split()[1]))
"""


def test_what_is_touched_is_locked_from_now_on() -> None:
    asked: list[int] = []

    def lock_all(flags: int) -> int:
        asked.append(flags)
        return 0

    lock_memory(lock_all)
    assert asked == [FLAGS]


def test_a_kernel_that_refuses_is_named_with_the_way_out() -> None:
    with pytest.raises(MemoryLockError, match=r"cannot lock memory: .*LimitMEMLOCK=infinity"):
        lock_memory(lambda flags: errno.ENOMEM)


@pytest.mark.parametrize(
    ("limit", "capabilities", "may"),
    [
        (RLIM_INFINITY, 0, True),
        (8 << 20, 0, False),
        (8 << 20, 1 << 14, True),
        (8 << 20, (1 << 14) - 1, False),
    ],
)
def test_a_limit_counts_unless_the_process_is_above_it(
    limit: int, capabilities: int, may: bool
) -> None:
    status = f"Name:\tx\nCapEff:\t{capabilities:016x}\nCapBnd:\tffff\n"
    assert may_lock(limit, status) is may


@pytest.mark.skipif(
    not may_lock(getrlimit(RLIMIT_MEMLOCK)[0], STATUS.read_text()),
    reason="this process may not lock memory without limit",
)
@pytest.mark.processes
def test_the_kernel_does_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOCKS], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) >= 1024
