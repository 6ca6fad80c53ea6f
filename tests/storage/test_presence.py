"""Guards and marks, on files alone; whole members are in `tests/server/start/test_data.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.logger import capturedLogs, formatEvent

from etcdtw.storage.disk.directory import DataDirError
from etcdtw.storage.presence import (
    ETCD_LOG,
    ETCD_SNAPSHOTS,
    GUARD_TEXT,
    MARK_FILE,
    Mark,
    check_presence,
    guard_log,
    guard_member,
    is_guard,
    lay_mark,
    read_mark,
)

MARK = Mark("a1", "c1", "/data/member/wal")


def test_a_file_takes_the_place_of_real_etcds_folder(tmp_path: Path) -> None:
    for _ in range(2):
        guard_member(tmp_path)
        assert (tmp_path / ETCD_SNAPSHOTS).read_bytes() == GUARD_TEXT
    assert os.listdir(tmp_path) == [ETCD_SNAPSHOTS]


def test_the_empty_folder_of_an_earlier_program_gives_way(tmp_path: Path) -> None:
    (tmp_path / ETCD_SNAPSHOTS).mkdir()
    (tmp_path / (ETCD_SNAPSHOTS + ".new")).write_bytes(b"a kill left this")
    guard_member(tmp_path)
    assert (tmp_path / ETCD_SNAPSHOTS).read_bytes() == GUARD_TEXT
    assert os.listdir(tmp_path) == [ETCD_SNAPSHOTS]


def test_a_folder_with_what_is_not_ours_stays_and_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / ETCD_SNAPSHOTS).mkdir()
    (tmp_path / ETCD_SNAPSHOTS / "somebody's").write_bytes(b"x")
    with capturedLogs() as events:
        guard_member(tmp_path)
    (text,) = [formatEvent(event) for event in events]
    assert text.startswith(f"{tmp_path / ETCD_SNAPSHOTS} holds what etcdtw has not put there")
    assert (tmp_path / ETCD_SNAPSHOTS / "somebody's").exists()


def test_a_folder_takes_the_place_of_real_etcds_first_log_file(tmp_path: Path) -> None:
    for _ in range(2):
        guard_log(tmp_path)
    assert os.listdir(tmp_path) == [ETCD_LOG]
    assert is_guard(tmp_path / ETCD_LOG)
    (tmp_path / "0000000000000001-0000000000000000.wal").mkdir()
    assert not is_guard(tmp_path / "0000000000000001-0000000000000000.wal")


def test_a_log_file_of_real_etcd_is_no_guard(tmp_path: Path) -> None:
    (tmp_path / ETCD_LOG).write_bytes(b"etcd's")
    assert not is_guard(tmp_path / ETCD_LOG)
    with pytest.raises(DataDirError, match="cannot write"):
        guard_log(tmp_path)


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
