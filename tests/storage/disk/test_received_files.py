"""How much of the free space snapshots may take, to the octet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from etcdtw.storage.disk.directory import DataDirError
from etcdtw.storage.disk.received_files import (
    RECEPTION_SHARE,
    ReceptionRoom,
    remove_leftovers,
)
from etcdtw.storage.disk.room import free_octets

FREE = 1 << 30


class Disk:
    """Free space that shrinks as files grow."""

    def __init__(self, free: int) -> None:
        self.free = free

    def octets(self, folder: Path) -> int:
        return self.free


@pytest.mark.parametrize("over", [0, 1])
def test_a_share_of_the_free_space_is_given_and_not_an_octet_more(over: int) -> None:
    room = ReceptionRoom(Path("/data"), Disk(FREE).octets)
    why = room.take(FREE // RECEPTION_SHARE + over)
    assert bool(why) == bool(over)
    assert room.refused_total == over
    assert room.held == (0 if over else FREE // RECEPTION_SHARE)
    if over:
        assert why == (
            "no space left on device: snapshots may take 256.0 MiB, a quarter of what is free "
            "at /data"
        )


def test_files_that_grow_together_share_it() -> None:
    disk = Disk(FREE)
    room = ReceptionRoom(Path("/data"), disk.octets)
    step = FREE // RECEPTION_SHARE // 8
    for _ in range(8):
        assert room.take(step) == ""
        disk.free -= step
    assert room.take(1)
    room.give_back(step)
    disk.free += step
    assert room.take(step) == ""


def test_what_others_take_meanwhile_counts() -> None:
    disk = Disk(FREE)
    room = ReceptionRoom(Path("/data"), disk.octets)
    assert room.take(FREE // 8) == ""
    disk.free = FREE // 8
    assert room.take(1)


def test_a_place_that_cannot_be_asked_refuses(tmp_path: Path) -> None:
    assert free_octets(tmp_path) > 0
    why = ReceptionRoom(tmp_path / "gone").take(1)
    assert why == "No such file or directory"


def test_leftovers_are_deleted_and_nothing_else(tmp_path: Path) -> None:
    names = ["7.snap.db.1.part", "7-1.snap.db", "1.out.db", "db", "kept"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["db", "kept"]
    remove_leftovers(tmp_path / "missing")


def test_leftovers_that_cannot_be_deleted_are_named(tmp_path: Path) -> None:
    (tmp_path / "7.snap.db.1.part").mkdir()
    with pytest.raises(DataDirError, match="cannot clear"):
        remove_leftovers(tmp_path)
