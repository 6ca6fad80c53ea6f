"""A start that is killed between making a name and making it durable, and the next start."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcdtw.storage.disk import directory
from etcdtw.storage.disk.directory import open_environment, prepare_directory

MAP_SIZE = 1 << 20


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The directories whose names were made durable."""
    found: list[Path] = []
    monkeypatch.setattr(directory, "sync_directory", found.append)
    return found


def test_directory_that_a_killed_start_made_becomes_durable(
    tmp_path: Path, synced: list[Path]
) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    prepare_directory(tmp_path / "data")
    assert synced == [tmp_path]


def test_each_new_directory_is_made_durable(tmp_path: Path, synced: list[Path]) -> None:
    prepare_directory(tmp_path / "data" / "member")
    assert synced == [tmp_path, tmp_path / "data"]


def test_environment_that_a_killed_start_made_becomes_durable(
    tmp_path: Path, synced: list[Path]
) -> None:
    for _ in range(2):
        synced.clear()
        open_environment(tmp_path, MAP_SIZE, 1).close()
        assert synced == [tmp_path]


def test_reader_makes_nothing_durable(tmp_path: Path, synced: list[Path]) -> None:
    open_environment(tmp_path, MAP_SIZE, 1).close()
    synced.clear()
    open_environment(tmp_path, MAP_SIZE, 1, readonly=True).close()
    assert synced == []
