"""The members that integration tests run against: etcdtw, and real etcd as the control."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.etcd_client import EtcdClient
from tests.support.processes import PROGRAMS, RunningMember


@pytest.fixture(scope="module", params=PROGRAMS)
def member(request: pytest.FixtureRequest) -> Iterator[RunningMember]:
    """One member for all tests of a file; each test keeps to its own keys."""
    with RunningMember(str(request.param)) as running:
        yield running
        assert running.is_running, running.stderr()[-4000:]
        assert "Traceback" not in running.stderr(), running.stderr()[-4000:]


@pytest.fixture
def client(member: RunningMember) -> Iterator[EtcdClient]:
    """A grpcio client of `member`."""
    with EtcdClient(member.endpoint) as connected:
        yield connected
