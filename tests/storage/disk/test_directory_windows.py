"""A start that is killed between making a name and making it durable, and the next start."""

from __future__ import annotations

from pathlib import Path

from etcdtw.storage.disk.directory import open_environment, prepare_directory

MAP_SIZE = 1 << 20


def test_directory_that_a_killed_start_made_becomes_durable(tmp_path: Path) -> None:
    synced: list[Path] = []
    (tmp_path / "data").mkdir(mode=0o700)
    prepare_directory(tmp_path / "data", synced.append)
    assert synced == [tmp_path]


def test_each_new_directory_is_made_durable(tmp_path: Path) -> None:
    synced: list[Path] = []
    prepare_directory(tmp_path / "data" / "member", synced.append)
    assert synced == [tmp_path, tmp_path / "data"]


def test_environment_that_a_killed_start_made_becomes_durable(tmp_path: Path) -> None:
    for _ in range(2):
        synced: list[Path] = []
        open_environment(tmp_path, MAP_SIZE, 1, sync=synced.append).close()
        assert synced == [tmp_path]


def test_reader_makes_nothing_durable(tmp_path: Path) -> None:
    open_environment(tmp_path, MAP_SIZE, 1).close()
    synced: list[Path] = []
    open_environment(tmp_path, MAP_SIZE, 1, readonly=True, sync=synced.append).close()
    assert synced == []
