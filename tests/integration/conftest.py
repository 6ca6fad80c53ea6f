"""The members that integration tests run against: etcdtw, and real etcd as the control."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.etcd_client import EtcdClient
from tests.support.processes import PROGRAMS, RunningMember

PIECES_FILE = "ETCDTW_PIECES_FILE"
"""Names the file to which members of ours write each piece of work that took too long."""


@pytest.fixture(scope="session", autouse=True)
def pieces_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("pieces") / "long"
    path.touch()
    before = os.environ.get(PIECES_FILE)
    os.environ[PIECES_FILE] = str(path)
    yield path
    if before is None:
        del os.environ[PIECES_FILE]
    else:
        os.environ[PIECES_FILE] = before


@pytest.fixture(autouse=True)
def no_long_pieces(pieces_file: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which a member of ours served nobody for more than 25 ms of CPU time."""
    known = pieces_file.stat().st_size
    yield
    lines = pieces_file.read_text()[known:].splitlines()
    allowed = request.node.get_closest_marker("long_pieces")
    kinds = allowed.args if allowed is not None else ()
    found = [line for line in lines if line.split()[0] not in kinds]
    assert not found, f"kind, ms of CPU time, ms that passed: {found}"


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
