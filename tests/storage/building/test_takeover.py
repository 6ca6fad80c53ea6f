"""A log of format 2 is taken over once, whatever ends the process at whichever step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from etcdtw.raft.entry import Entry, HardState
from etcdtw.storage.disk.directory import DataDirError, check_format, open_environment
from etcdtw.storage.log.codec import FORMAT, FORMAT_2, KEY_FORMAT, KEY_JOURNAL
from etcdtw.storage.log.journal import SEGMENT_FILES, SEGMENT_SIZE
from etcdtw.storage.log.journal_before import read_journal_before
from etcdtw.storage.log.journal_codec import PAGE, decode_settled
from etcdtw.storage.log.journal_open import begin_journal
from etcdtw.storage.log.log import MAP_SIZE, LmdbLog, open_log
from tests.support.journal_rig import ReadOnlyWriter, all_of
from tests.support.recorded import unpack

RECORDED = "wal2-state1-single"
SALT = b"8 octets"

Found = tuple[list[Entry], HardState]


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    return unpack(RECORDED, tmp_path / "data") / "member" / "wal"


def start(path: Path) -> Found:
    """Open the log as a member does; return what it holds."""
    env, lock_fd = open_log(path)
    begin_journal(env, path, MAP_SIZE, SALT).close()
    log = LmdbLog(env, ReadOnlyWriter(), lock_fd=lock_fd)
    found = all_of(log), log.initial_state()[0]
    log.close()
    return found


def take_over_and_die(path: Path) -> None:
    """End behind the transaction, before there is a journal."""
    env, lock_fd = open_log(path)
    env.close()
    os.close(lock_fd)


def notes(path: Path) -> tuple[bytes | None, bytes | None]:
    env = open_environment(path, MAP_SIZE, 0)
    with env.begin() as txn:
        found = txn.get(KEY_FORMAT), txn.get(KEY_JOURNAL)
    env.close()
    return found


def test_what_only_the_journal_held_is_there_afterwards(wal: Path) -> None:
    found, note = notes(wal)
    assert found == FORMAT_2
    assert note is not None
    segments = [(wal / name).read_bytes() for name in SEGMENT_FILES]
    jobs = read_journal_before(segments, *decode_settled(note))
    unsettled = [job.batch_first for job in jobs if job.batch_first]
    assert len(unsettled) > 3
    entries, hard_state = start(wal)
    assert [entry.index for entry in entries] == list(range(1, unsettled[-1] + 1))
    assert b"only in the journal 4" in entries[-2].data
    assert hard_state.term > 1
    assert start(wal) == (entries, hard_state)
    assert notes(wal)[0] == FORMAT


@pytest.mark.parametrize(
    "left",
    [
        {},
        {name: None for name in SEGMENT_FILES},
        {"journal.0": b""},
        {"journal.0": bytes(3 * PAGE + 100), "journal.1": None},
        {"journal.0": bytes(SEGMENT_SIZE)},
        {name: bytes(SEGMENT_SIZE) for name in SEGMENT_FILES},
        {name: bytes(SEGMENT_SIZE + PAGE) for name in SEGMENT_FILES},
    ],
)
def test_a_takeover_that_was_cut_short_is_gone_on_with(
    wal: Path, tmp_path: Path, left: dict[str, bytes | None]
) -> None:
    expected = start(unpack(RECORDED, tmp_path / "whole") / "member" / "wal")
    take_over_and_die(wal)
    assert notes(wal) == (FORMAT, None)
    for name, content in left.items():
        (wal / name).unlink()
        if content is not None:
            (wal / name).write_bytes(content)
    assert start(wal) == expected
    assert {(wal / name).stat().st_size for name in SEGMENT_FILES} == {SEGMENT_SIZE}
    assert start(wal) == expected


def test_a_program_of_the_format_before_refuses_it_with_both_numbers(wal: Path) -> None:
    take_over_and_die(wal)
    found, _ = notes(wal)
    with pytest.raises(DataDirError, match="has format 3, this program reads format 2; use the"):
        check_format(found, FORMAT_2, False, wal)


def test_a_journal_of_the_format_before_that_misses_a_record_is_refused(wal: Path) -> None:
    _, note = notes(wal)
    assert note is not None
    content = bytearray((wal / "journal.0").read_bytes())
    epoch, salt, settled = decode_settled(note)
    sequence = (epoch).to_bytes(8, "big") + salt + (settled + 1).to_bytes(8, "big")
    content[content.index(sequence) + 40] ^= 1
    (wal / "journal.0").write_bytes(content)
    with pytest.raises(DataDirError, match=r"is damaged, but record .* is whole.* join again"):
        open_log(wal)
    assert notes(wal)[0] == FORMAT_2, "nothing was changed"
