"""A child of the state that hangs ends by itself, and one that goes on does not."""

from __future__ import annotations

import marshal
import os
import signal
import subprocess
import sys

import pytest

CHILD = """
import os, sys, time
from etcdtw.storage.snapshot.child import run_child

def work(still_wanted, pause_s):
    for _ in range(3):
        time.sleep(pause_s)
        still_wanted()
    return (7,)

os._exit(run_child(sys.argv[1:], work, stall_s=1))
"""


@pytest.mark.processes
@pytest.mark.parametrize(("pause_s", "status"), [(0.5, 0), (1.6, -signal.SIGALRM)])
def test_a_child_without_progress_is_ended(pause_s: float, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(os.getpid())],
        input=marshal.dumps((pause_s,)),
        stdout=subprocess.PIPE,
        check=False,
        timeout=30,
    )
    assert done.returncode == status
    if status == 0:
        assert marshal.loads(done.stdout) == ("done", 7)
