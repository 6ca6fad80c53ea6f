"""Log files that are put aside."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from etcdtw.config.log_rotation import LogRotation
from etcdtw.server.process.log_files import FileOutput, RotatingOutput

DAY_S = 86_400
ROTATION = LogRotation(
    size_max=20, age_max_s=0, backups_max=0, is_local_time=False, compresses=False
)


def at_once(work: Callable[[], None]) -> None:
    work()


class Files:
    """A folder with a log that rotates, at a time of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = 1_700_000_000.0

    def open(self, rotation: LogRotation = ROTATION) -> RotatingOutput:
        path = str(self.folder / "etcd.log")
        return RotatingOutput(path, rotation, unix_s=lambda: self.now_s, start=at_once)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.folder))

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_file_is_put_aside_before_it_would_grow_beyond_its_limit(files: Files) -> None:
    output = files.open()
    output("info", "x" * 9)
    output("info", "y" * 9)  # 20 octets: as many as there may be
    assert files.names() == ["etcd.log"]
    output("info", "z")
    assert files.names() == ["etcd-2023-11-14T22-13-20.000.log", "etcd.log"]
    assert files.text("etcd.log") == "z\n"
    assert files.text(files.names()[0]) == f"{'x' * 9}\n{'y' * 9}\n"


def test_what_an_earlier_process_wrote_counts(files: Files) -> None:
    (files.folder / "etcd.log").write_text("x" * 19)
    output = files.open()
    output("info", "y")
    assert files.text("etcd.log") == "y\n"


def test_a_line_is_never_cut(files: Files) -> None:
    output = files.open()
    output("info", "x" * 50)
    output("info", "y" * 50)
    assert files.text("etcd.log") == f"{'y' * 50}\n"
    assert len(files.names()) == 2


def test_two_within_a_millisecond_have_two_names(files: Files) -> None:
    output = files.open()
    for letter in "abc":
        output("info", letter * 19)
    assert files.names()[:2] == [
        "etcd-2023-11-14T22-13-20.000.log",
        "etcd-2023-11-14T22-13-20.001.log",
    ]


def test_only_so_many_are_kept_and_nothing_else_is_touched(files: Files) -> None:
    for name in ("etcd-other.log", "etcd-2023-11-14T22-13-20.000.txt", "x.log"):
        (files.folder / name).write_text("kept")
    output = files.open(replace(ROTATION, backups_max=2))
    for letter in "abcde":
        output("info", letter * 19)
        files.now_s += 1
    assert [files.text(os.path.basename(path))[0] for path in output.backups()] == ["d", "c"]
    assert len(files.names()) == 6


def test_old_ones_are_removed(files: Files) -> None:
    output = files.open(replace(ROTATION, age_max_s=3 * DAY_S))
    for letter in "abc":
        output("info", letter * 19)
        files.now_s += 1
    old, new = output.backups()[::-1]
    os.utime(old, (0, files.now_s - 3 * DAY_S - 1))
    os.utime(new, (0, files.now_s - 3 * DAY_S))
    output.tidy()
    assert output.backups() == [new]


def test_compressed_ones_hold_the_same_and_are_as_old(files: Files) -> None:
    output = files.open(replace(ROTATION, compresses=True))
    output("info", "a" * 19)
    os.utime(files.folder / "etcd.log", (1, 1))
    output("info", "b" * 19)
    (name,) = [one for one in files.names() if one.endswith(".gz")]
    assert gzip.decompress((files.folder / name).read_bytes()).decode() == "a" * 19 + "\n"
    assert (files.folder / name).stat().st_mtime == 1
    assert files.names() == [name, "etcd.log"]


def test_a_file_that_was_renamed_by_others_is_begun_anew_and_counted_anew(files: Files) -> None:
    output = files.open()
    output("info", "x" * 19)
    (files.folder / "etcd.log").rename(files.folder / "old")
    output.reopen()
    output("info", "y" * 10)
    assert files.names() == ["etcd.log", "old"]
    assert files.text("etcd.log") == "y" * 10 + "\n"


def test_a_file_that_cannot_be_put_aside_is_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    files = Files(folder)
    output = files.open()
    output("info", "x" * 19)
    folder.rename(tmp_path / "gone")
    output("info", "y" * 19)
    assert (tmp_path / "gone" / "etcd.log").read_text() == f"{'x' * 19}\n{'y' * 19}\n"


def test_file_that_was_renamed_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    output = FileOutput(str(path))
    output("info", "one")
    path.rename(tmp_path / "old")
    output("info", "two")
    output.reopen()
    output("info", "three")
    assert ((tmp_path / "old").read_text(), path.read_text()) == ("one\ntwo\n", "three\n")


def test_file_that_cannot_be_begun_anew_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    output = FileOutput(str(tmp_path / "folder" / "log"))
    (tmp_path / "folder").rename(tmp_path / "gone")
    output.reopen()
    output("info", "kept")
    assert (tmp_path / "gone" / "log").read_text() == "kept\n"
