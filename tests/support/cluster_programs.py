"""Which programs the tests of clusters are run with, and which of them can be run here.

Clusters of real etcd alone judge the tests themselves: they are `long`, and run by `make long`.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.support.judges import older_program
from tests.support.processes import OLDER_LINES

ETCD: Final = "etcd"
ETCDTW: Final = "etcdtw"
CLUSTER_PROGRAMS: Final = (ETCD, *OLDER_LINES, ETCDTW)


def why_not(*programs: str) -> str:
    """Return why a test with members of ``programs`` cannot run here; empty when it can."""
    for program in programs:
        if program in OLDER_LINES and older_program(OLDER_LINES[program]) is None:
            return f"NO REAL ETCD {OLDER_LINES[program]}: `make judges`"
    return ""


def with_programs(*programs: str, is_long: bool = False) -> Any:
    """Return the parameters of a test that takes ``programs``, skipped where one is missing.

    Those without ours are long, and those that ``is_long`` says: others show nearly the same.
    """
    reason = why_not(*programs)
    marks = [pytest.mark.skip(reason=reason)] if reason else []
    if is_long or ETCDTW not in programs:
        marks.append(pytest.mark.long)
    return pytest.param(*programs, id="-".join(programs), marks=marks)
