"""Rows of the log that a damaged page hides are missed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from etcdtw.storage.disk.directory import DataDirError
from etcdtw.storage.log.codec import (
    FORMAT,
    FORMATS_BEFORE,
    KEY_FORMAT,
    KEY_HARD_STATE,
    KEY_JOURNAL,
    CorruptionError,
    batch_key,
)
from etcdtw.storage.log.journal_codec import SALT_SIZE
from etcdtw.storage.log.journal_open import begin_journal
from etcdtw.storage.log.log import open_log
from etcdtw.storage.log.names import check_names


@pytest.fixture
def env(tmp_path: Path) -> Iterator[lmdb.Environment]:
    with lmdb.open(str(tmp_path / "wal"), map_size=1 << 20) as opened:
        with opened.begin(write=True) as txn:
            for name in (KEY_FORMAT, KEY_HARD_STATE, batch_key(1), batch_key(300)):
                txn.put(name, b"x")
        yield opened


def test_the_rows_of_a_log_pass(env: lmdb.Environment) -> None:
    with env.begin() as txn:
        check_names(txn)


@pytest.mark.parametrize(
    "name", [b"\x00hard_sTate", b"\x05" + batch_key(300)[1:], batch_key(1) + b"\0", b"\x01"]
)
def test_a_row_that_is_no_logs_is_refused(env: lmdb.Environment, name: bytes) -> None:
    with env.begin(write=True) as txn:
        txn.put(name, b"x")
        with pytest.raises(CorruptionError, match="is not one of a log"):
            check_names(txn)


class Hiding:
    """A transaction over pages that lost or doubled a row."""

    def __init__(self, names: list[bytes], entries: int) -> None:
        self.names = names
        self.entries = entries

    def cursor(self) -> Hiding:
        return self

    def iternext(self, keys: bool, values: bool) -> list[bytes]:
        return self.names

    def stat(self) -> dict[str, int]:
        return {"entries": self.entries}

    def get(self, name: bytes) -> bytes | None:
        return None if name == batch_key(9) else b"x"


@pytest.mark.parametrize(
    ("names", "entries", "complaint"),
    [
        ([batch_key(1)], 2, "1 rows are found where 2 are counted"),
        ([batch_key(1), batch_key(1)], 2, "is out of order"),
        ([batch_key(2), batch_key(1)], 2, "is out of order"),
        ([batch_key(1), batch_key(9)], 2, "a search does not find"),
    ],
)
def test_a_hidden_or_doubled_row_is_missed(
    names: list[bytes], entries: int, complaint: str
) -> None:
    with pytest.raises(CorruptionError, match=complaint):
        check_names(Hiding(names, entries))


@pytest.mark.parametrize("number", [FORMAT, *FORMATS_BEFORE])
def test_a_journal_that_its_log_does_not_know_any_more_is_not_passed_over(
    tmp_path: Path, number: bytes
) -> None:
    path = tmp_path / "wal"
    opened, lock_fd = open_log(path, 1 << 24)
    begin_journal(opened, path, 1 << 24, bytes(SALT_SIZE)).close()
    with opened.begin(write=True) as txn:
        note = txn.pop(KEY_JOURNAL)
        assert note is not None
        txn.put(b"\x00jourNal", note)
        txn.put(KEY_FORMAT, number)
    opened.close()
    os.close(lock_fd)
    with pytest.raises(DataDirError, match="is not one of a log"):
        open_log(path, 1 << 24)
