"""Directories of every earlier format: this program takes them over and serves all of them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.etcd_client import EtcdClient
from tests.support.processes import RunningMember
from tests.support.record_directory import facts
from tests.support.recorded import NAMES, told, unpack

pytestmark = pytest.mark.integration

KILLS = 10
FIRST_AND_LAST = [
    pytest.param(name, marks=[] if name in (NAMES[0], NAMES[-1]) else [pytest.mark.long])
    for name in NAMES
]
KILL_FIRST_S = 0.3  # by then the interpreter has read its modules
KILL_STEP_S = 0.08


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_of_an_earlier_format_is_served_whole(name: str, tmp_path: Path) -> None:
    flags = ["--force-new-cluster"] if name.endswith("of-three") else []
    member = RunningMember("etcdtw", data_dir=unpack(name, tmp_path / "data"), flags=flags)
    with member, EtcdClient(member.endpoint) as client:
        assert facts(client) == told(name)
        client.put(b"more", b"after the takeover")
        served = facts(client)
        member.kill()
        member.flags = []
        member.restart()
        assert facts(client) == served


@pytest.mark.parametrize("name", FIRST_AND_LAST)
def test_a_takeover_that_is_killed_over_and_over_loses_nothing(name: str, tmp_path: Path) -> None:
    flags = ["--force-new-cluster"] if name.endswith("of-three") else []
    member = RunningMember("etcdtw", data_dir=unpack(name, tmp_path / "data"), flags=flags)
    for step in range(KILLS):
        member.launch()
        time.sleep(KILL_FIRST_S + step * KILL_STEP_S)
        member.kill()
    with member, EtcdClient(member.endpoint) as client:
        assert facts(client) == told(name)
