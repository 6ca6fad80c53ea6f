"""Which programs the tests of clusters are run with, and which of them can be run here.

`CLUSTERS_READY` is the one switch: while it is False, everything that needs etcdtw in a cluster
is skipped, and says so.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.support.processes import ETCD34, etcd34_program

CLUSTERS_READY: Final = True
ETCD: Final = "etcd"
ETCDTW: Final = "etcdtw"
CLUSTER_PROGRAMS: Final = (ETCD, ETCD34, ETCDTW)


def why_not(*programs: str) -> str:
    """Return why a test with members of ``programs`` cannot run here; empty when it can."""
    if ETCDTW in programs and not CLUSTERS_READY:
        return "etcdtw does not form clusters yet (CLUSTERS_READY)"
    if ETCD34 in programs and etcd34_program() is None:
        return "NO REAL ETCD 3.4: name its path in ETCDTW_ETCD34 (Debian: dpkg -x etcd-server)"
    return ""


def with_programs(*programs: str) -> Any:
    """Return the parameters of a test that takes ``programs``, skipped where one is missing."""
    reason = why_not(*programs)
    marks = [pytest.mark.skip(reason=reason)] if reason else []
    return pytest.param(*programs, id="-".join(programs), marks=marks)
