"""Guards and marks, on files alone; whole members are in `tests/server/test_data.py`."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from twisted.logger import capturedLogs, formatEvent

from etcdtw.storage.directory import DataDirError
from etcdtw.storage.presence import (
    GUARD_TARGET,
    MARK_FILE,
    Mark,
    check_presence,
    guard_against_etcd,
    is_guard,
    lay_mark,
    read_mark,
)

MARK = Mark("a1", "c1", "/data/member/wal")


def test_a_guard_can_neither_be_opened_nor_be_made_a_file(tmp_path: Path) -> None:
    path = tmp_path / "snap" / "db"
    for _ in range(2):
        guard_against_etcd(path)
        assert is_guard(path)
        assert not path.exists()
        with pytest.raises(FileNotFoundError):
            os.open(path, os.O_RDWR | os.O_CREAT)
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_what_has_the_name_already_is_left_alone_and_no_guard(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "db"
    if kind == "file":
        path.write_bytes(b"etcd's")
    elif kind == "link":
        path.symlink_to("elsewhere")
    else:
        path.mkdir()
    guard_against_etcd(path)
    assert not is_guard(path)


def test_a_filesystem_without_links_is_used_without_a_guard(tmp_path: Path) -> None:
    def no_links(target: str, path: Path) -> None:
        assert target == GUARD_TARGET
        raise OSError(errno.EPERM, "Operation not permitted")

    with capturedLogs() as events:
        guard_against_etcd(tmp_path / "db", no_links)
    (text,) = [formatEvent(event) for event in events]
    assert text == f"{tmp_path / 'db'} cannot be a link here: nothing keeps real etcd away"


def test_a_guard_that_finds_no_room_is_an_error(tmp_path: Path) -> None:
    def no_room(target: str, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataDirError, match="no space left on the device"):
        guard_against_etcd(tmp_path / "db", no_room)


def test_a_mark_is_read_as_it_was_laid_and_replaced(tmp_path: Path) -> None:
    assert read_mark(tmp_path) is None
    assert read_mark(tmp_path / "missing") is None
    lay_mark(tmp_path, MARK)
    lay_mark(tmp_path, MARK)
    assert read_mark(tmp_path) == MARK
    moved = MARK._replace(log="/elsewhere")
    lay_mark(tmp_path, moved)
    assert read_mark(tmp_path) == moved
    assert os.listdir(tmp_path) == [MARK_FILE]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_a_damaged_mark_still_says_that_a_member_has_run(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MARK_FILE).write_bytes(content)
    assert read_mark(tmp_path) == Mark("", "", "")
    with pytest.raises(DataDirError, match="its log is missing"):
        check_presence(tmp_path, tmp_path / "wal", tmp_path / "state")


def test_a_new_member_lacks_nothing(tmp_path: Path) -> None:
    check_presence(tmp_path, tmp_path / "wal", tmp_path / "state")
