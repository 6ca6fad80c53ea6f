"""What all tests share: who judges, and that hypothesis never judges how busy the machine is."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.support.judges import etcd34_program, judge_program, told_version

settings.register_profile("etcdtw", deadline=None)
settings.load_profile("etcdtw")


def pytest_report_header(config: pytest.Config) -> str:
    """Say which real etcd judges this run."""
    judge = judge_program("etcd")
    also = "also 3.4" if etcd34_program() else "without 3.4"
    return f"judge: real etcd {told_version(judge)} at {judge} ({also})"
