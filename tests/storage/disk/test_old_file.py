"""The file that another one took the place of is given back in steps, but not under a reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcdtw.storage.disk.old_file import OldFile, held


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "data.mdb"
    found.write_bytes(bytes(1000))
    return found


def test_the_old_file_is_given_back_in_steps(file: Path) -> None:
    old = OldFile(file, step_octets=300)
    found = [(old.shrink(), file.stat().st_size) for _ in range(4)]
    assert found == [(False, 700), (False, 400), (False, 100), (True, 0)]
    assert old.shrink()


def test_an_old_file_that_is_still_read_is_left_as_it_is(file: Path) -> None:
    old = OldFile(file)
    with held(file):
        assert old.shrink()
    assert old.shrink()
    assert file.stat().st_size == 1000
