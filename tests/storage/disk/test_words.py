"""What a start says when the disk lacks room or rights: how much, and whose."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import lmdb
import pytest

from etcdtw.storage.disk.words import disk_words, is_outside_cause, size_words


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (0, "0 octets"),
        (1023, "1023 octets"),
        (1024, "1.0 KiB"),
        (1 << 20, "1.0 MiB"),
        (5 << 59, "2560.0 PiB"),
    ],
)
def test_sizes_are_written_for_people(octets: int, text: str) -> None:
    assert size_words(octets) == text


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        lmdb.Error("mdb_txn_commit: No space left on device"),
    ],
)
def test_a_full_disk_says_how_much_there_is(tmp_path: Path, error: Exception) -> None:
    place = tmp_path / "not" / "there"
    text = disk_words(error, place)
    assert text.startswith("no space left on the device (")
    assert text.endswith(f" are free at {place})")
    assert is_outside_cause(error)


def test_a_place_that_may_not_be_used_says_whose_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    text = disk_words(PermissionError(errno.EACCES, "Permission denied"), tmp_path / "data")
    assert text == (
        f"permission denied (this process runs as user {os.geteuid()}; {tmp_path} belongs to "
        f"user {os.geteuid()}, mode 0750)"
    )


def test_other_errors_keep_their_own_words(tmp_path: Path) -> None:
    assert disk_words(OSError(errno.EIO, "Input/output error"), tmp_path) == "Input/output error"
    assert disk_words(lmdb.CorruptedError("mdb_get: corrupted"), tmp_path) == "mdb_get: corrupted"
    assert not is_outside_cause(OSError(errno.EIO, "Input/output error"))
    assert "read-only" in disk_words(OSError(errno.EROFS, "Read-only file system"), tmp_path)
