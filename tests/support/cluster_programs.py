"""Which programs the tests of clusters are run with, and which of them can be run here.

Clusters of real etcd alone judge the tests themselves: they are `long`, and run by `make long`.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.support.judges import etcd34_program
from tests.support.processes import ETCD34

ETCD: Final = "etcd"
ETCDTW: Final = "etcdtw"
CLUSTER_PROGRAMS: Final = (ETCD, ETCD34, ETCDTW)


def why_not(*programs: str) -> str:
    """Return why a test with members of ``programs`` cannot run here; empty when it can."""
    if ETCD34 in programs and etcd34_program() is None:
        return "NO REAL ETCD 3.4: `make judges`, or name its path in ETCDTW_ETCD34"
    return ""


def with_programs(*programs: str) -> Any:
    """Return the parameters of a test that takes ``programs``, skipped where one is missing."""
    reason = why_not(*programs)
    marks = [pytest.mark.skip(reason=reason)] if reason else []
    if ETCDTW not in programs:
        marks.append(pytest.mark.long)
    return pytest.param(*programs, id="-".join(programs), marks=marks)
