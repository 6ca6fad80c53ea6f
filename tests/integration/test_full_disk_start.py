"""A member starts on a disk that a killed reception has filled, or says how full the disk is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster_processes import wait_for
from tests.support.etcd_client import EtcdClient
from tests.support.processes import MemberNotReadyError, RunningMember
from tests.support.small_disks import small_disk

pytestmark = pytest.mark.integration

STEP = 1 << 16


@pytest.fixture
def disk() -> Iterator[Path]:
    """A filesystem with room for a journal and little else."""
    with small_disk("200m") as folder:
        yield folder


def fill(file: Path) -> None:
    """Let ``file`` take all that is free."""
    with file.open("wb", buffering=0) as stream:
        step = STEP
        while step:
            try:
                if stream.write(bytes(step)) < step:
                    step //= 2
            except OSError:
                step //= 2


def test_what_a_killed_reception_left_does_not_keep_the_member_down(disk: Path) -> None:
    member = RunningMember("etcdtw", data_dir=disk / "data")
    with member, EtcdClient(member.endpoint) as client:
        for number in range(100):
            client.put(b"key%d" % number, bytes(1000))
        member.kill()
        part = member.data_dir / "member" / "snapshots" / "0000000000000099-1.snap.db.1.part"
        fill(part)
        member.start()
        assert not part.exists()
        assert client.range(b"key99").kvs[0].value == bytes(1000)


@pytest.mark.parametrize("free", [0, 5 * STEP, 12 << 20, 32 << 20])
def test_a_start_on_a_full_disk_says_how_much_there_is(
    disk: Path, tmp_path: Path, free: int
) -> None:
    """Whichever of the member's files finds no room."""
    data = tmp_path / "data"
    data.symlink_to(disk, target_is_directory=True)
    fill(disk / "others")
    os.truncate(disk / "others", (disk / "others").stat().st_size - free)
    member = RunningMember("etcdtw", data_dir=data)
    words = r"no space left on the device \(\d.* of 200.0 MiB are free at "
    with pytest.raises(MemberNotReadyError):
        member.start()
    # What it wrote is read by a thread of its own.
    wait_for(lambda: re.search(words, member.stderr()) is not None, 5.0, "the reason")
    assert member.exit_status == 1
    member.close()
