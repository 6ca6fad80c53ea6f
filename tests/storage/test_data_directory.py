"""Directories that must not be used, and what is said about them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

import lmdb
import pytest

from etcdtw.raft.entry import Entry, HardState
from etcdtw.storage.disk.directory import (
    DataDirError,
    filesystem_of,
    lock_directory,
    prepare_directory,
    refuse_remote,
)
from etcdtw.storage.disk.file_extent import used_size
from etcdtw.storage.log import codec
from etcdtw.storage.log.founding import found_log, stored_identity
from etcdtw.storage.log.journal_open import begin_journal
from etcdtw.storage.log.journal_writer import JournalWriter
from etcdtw.storage.log.log import LmdbLog, open_log
from etcdtw.storage.log.writer import NOTHING_UNSETTLED, LogJob, perform
from etcdtw.storage.state.open import open_state
from etcdtw.wire.mvccpb import KeyValue
from tests.support.small_disks import small_disk

MAP_SIZE = 1 << 24


class DirectWriter:
    def __init__(self, env: lmdb.Environment) -> None:
        self.env = env

    def write(self, job: LogJob, done: object) -> None:
        with self.env.begin(write=True) as txn:
            more = perform(txn, job)
        assert callable(done)
        done(more)

    def unsettled_first(self) -> int:
        return NOTHING_UNSETTLED

    def close(self) -> None:
        """Nothing is open."""


def open_whole_log(path: Path) -> LmdbLog:
    env, lock_fd = open_log(path, MAP_SIZE)
    try:
        return LmdbLog(env, DirectWriter(env), lock_fd=lock_fd)
    except DataDirError:
        env.close()
        os.close(lock_fd)
        raise


def read_whole_log(path: Path) -> None:
    env, lock_fd = open_log(path, MAP_SIZE)
    try:
        stored_identity(env)
        LmdbLog(env, DirectWriter(env))
    finally:
        env.close()
        os.close(lock_fd)


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    """A log of thirty entries in ten batches, closed."""
    env, lock_fd = open_log(tmp_path / "wal", MAP_SIZE)
    batches = [[Entry(1, first + i, 0, bytes(200)) for i in range(3)] for first in range(1, 31, 3)]
    found_log(env, MAP_SIZE, b"me", HardState(1, 0, 3), batches[0])
    log = LmdbLog(env, DirectWriter(env), lock_fd=lock_fd)
    for entries in batches[1:]:
        log.append(None, entries, lambda: None)
    log.close()
    return tmp_path / "wal"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state of two hundred keys, closed."""
    made = open_state(tmp_path / "state", pytest.fail, map_size=MAP_SIZE)
    for main in range(2, 202):
        key = b"key%03d" % main
        record = KeyValue(
            key=key, create_revision=main, mod_revision=main, version=1, value=bytes(100)
        )
        made.put(main, 0, key, record.SerializeToString(), True)
    made.flush(lambda: None)
    made.close()
    return tmp_path / "state"


def test_a_flipped_bit_in_any_batch_is_refused_at_the_start(wal: Path) -> None:
    content = bytearray((wal / "data.mdb").read_bytes())
    refusals: list[str] = []
    at = content.find(bytes(150))
    while at >= 0:
        damaged = bytearray(content)
        damaged[at + 75] ^= 4
        (wal / "data.mdb").write_bytes(damaged)
        try:
            open_whole_log(wal).close()
        except DataDirError as error:
            refusals.append(str(error))
        at = content.find(bytes(150), at + 150)
    assert len(refusals) >= 20, "most of these octets are live"
    assert all("checksum" in text and "join again" in text for text in refusals)


@pytest.mark.parametrize(
    ("key", "size"),
    [(codec.KEY_IDENTITY, 6), (codec.batch_key(4), 100), (codec.batch_key(28), 8)],
)
def test_a_changed_or_missing_record_is_refused(wal: Path, key: bytes, size: int) -> None:
    env, lock_fd = open_log(wal, MAP_SIZE)
    with env.begin(write=True) as txn:
        value = bytes(txn.get(key) or b"")
        txn.put(key, value[: size - 1] + bytes((value[size - 1] ^ 1,)) + value[size:])
    env.close()
    os.close(lock_fd)
    with pytest.raises(DataDirError):
        read_whole_log(wal)


def test_a_missing_batch_is_refused(wal: Path) -> None:
    env, lock_fd = open_log(wal, MAP_SIZE)
    with env.begin(write=True) as txn:
        txn.delete(codec.batch_key(13))
    env.close()
    os.close(lock_fd)
    with pytest.raises(DataDirError, match="does not continue"):
        open_whole_log(wal)


@pytest.mark.parametrize("name", ["wal", "state"])
def test_a_truncated_file_is_refused(name: str, wal: Path, state: Path) -> None:
    file = wal.parent / name / "data.mdb"
    os.truncate(file, file.stat().st_size // 8192 * 4096)
    with pytest.raises(DataDirError, match="truncated"):
        reopen(file.parent)


@pytest.mark.parametrize("size", [60_000, 500_000])
def test_a_file_needs_all_its_pages_in_use_and_not_one_more(tmp_path: Path, size: int) -> None:
    """A value at the very end, then values in trees of their own, in many pages."""
    env = lmdb.open(str(tmp_path), map_size=MAP_SIZE, max_dbs=2)
    handle = env.open_db(b"table")
    with env.begin(write=True) as txn:
        for i in range(2000):
            txn.put(b"key%d" % i, bytes(100), db=handle)
    with env.begin(write=True) as txn:
        txn.put(b"large", bytes(size), db=handle)
    needed = (env.info()["last_pgno"] + 1) * 4096
    env.close()
    content = (tmp_path / "data.mdb").read_bytes()
    newest = max((0, 4096), key=lambda at: content[at + 144 : at + 152][::-1])
    used = used_size(io.BytesIO(content), content[newest : newest + 4096])
    assert used <= needed
    assert used > size
    for cut in range(8192, used, 4096):
        try:
            assert used_size(io.BytesIO(content[:cut]), content[newest : newest + 4096]) > cut
        except ValueError:
            pytest.fail("the pages that are there are sound")
    assert used_size(io.BytesIO(content[:used]), content[newest : newest + 4096]) == used


def test_a_sound_file_that_ends_before_its_last_page_is_opened(wal: Path) -> None:
    """LMDB never writes pages that one transaction takes from the end and frees again."""
    env = lmdb.open(str(wal), map_size=MAP_SIZE)
    for filler in (bytes(20_000), None):
        with env.begin(write=True) as txn:
            if filler is None:
                txn.delete(b"\x02filler")
            else:
                txn.put(b"\x02filler", filler)
    with env.begin(write=True) as txn:
        txn.put(b"\x02small", bytes(6000))
        txn.put(b"\x02large", bytes(60_000))
        txn.delete(b"\x02large")
        txn.delete(b"\x02small")
    needed = (env.info()["last_pgno"] + 1) * 4096
    env.close()
    assert (wal / "data.mdb").stat().st_size < needed
    open_whole_log(wal).close()
    assert (wal / "data.mdb").stat().st_size == needed


@pytest.mark.parametrize("name", ["wal", "state"])
@pytest.mark.parametrize("content", [b"hello", b"SQLite format 3\0" * 1000, bytes(8191) + b"x"])
def test_a_foreign_file_is_refused(name: str, content: bytes, wal: Path, state: Path) -> None:
    file = wal.parent / name / "data.mdb"
    file.write_bytes(content)
    with pytest.raises(DataDirError, match="not an LMDB file"):
        reopen(file.parent)


def test_a_file_that_a_crash_left_empty_is_begun_anew(tmp_path: Path) -> None:
    for size in (0, 4096, 8192):
        prepare_directory(tmp_path / "wal")
        (tmp_path / "wal" / "data.mdb").write_bytes(bytes(size))
        reopen(tmp_path / "wal")
        (tmp_path / "wal" / "data.mdb").unlink()
        (tmp_path / "wal" / "lock.mdb").unlink()


@pytest.mark.parametrize("name", ["wal", "state"])
def test_another_lmdb_version_is_refused(name: str, wal: Path, state: Path) -> None:
    file = wal.parent / name / "data.mdb"
    content = bytearray(file.read_bytes())
    content[20] = content[4096 + 20] = 2
    file.write_bytes(content)
    with pytest.raises(DataDirError, match="data version 2"):
        reopen(file.parent)


def test_another_format_version_is_refused(wal: Path, state: Path) -> None:
    rewrite(wal, None, codec.KEY_FORMAT, b"etcdtw-wal 4")
    with pytest.raises(DataDirError, match="has format 4, this program reads format 3"):
        reopen(wal)
    rewrite(state, b"etcdtw", b"format", b"etcdtw-state 7")
    with pytest.raises(DataDirError, match="has format 7, this program reads format 2"):
        reopen(state)


def rewrite(path: Path, table: bytes | None, key: bytes, value: bytes) -> None:
    env = lmdb.open(str(path), map_size=MAP_SIZE, max_dbs=32)
    handle = env.open_db(table)
    with env.begin(write=True) as txn:
        txn.put(key, value, db=handle)
    env.close()


def test_the_log_and_the_state_are_not_mistaken_for_one_another(wal: Path, state: Path) -> None:
    (wal / "data.mdb").rename(wal.parent / "kept")
    (state / "data.mdb").rename(wal / "data.mdb")
    (wal.parent / "kept").rename(state / "data.mdb")
    with pytest.raises(DataDirError, match="not etcdtw-wal"):
        open_log(wal, MAP_SIZE)
    with pytest.raises(DataDirError, match="not etcdtw-state"):
        open_state(state, pytest.fail, map_size=MAP_SIZE)


@pytest.mark.processes
def test_a_lost_row_of_the_present_is_made_anew_at_the_start(state: Path) -> None:
    env = lmdb.open(str(state), map_size=MAP_SIZE, max_dbs=32)
    handle = env.open_db(b"current")
    with env.begin(write=True) as txn:
        txn.delete(b"key100", db=handle)
    env.close()
    opened = open_state(state, pytest.fail, map_size=MAP_SIZE)
    assert "199 live keys where the fences count 200" in opened.damage.mended_at_start
    assert opened.get(b"key100") is not None
    opened.close()
    command = [sys.executable, "-m", "etcdtw.storage.state_rebuild", str(state)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "0 complaints before, 0 after" in done.stdout


@pytest.mark.parametrize("name", ["wal", "state"])
def test_a_second_owner_is_refused_and_told_where(name: str, wal: Path, state: Path) -> None:
    path = wal.parent / name
    held = lock_directory(path)
    with pytest.raises(DataDirError, match=rf"{name} is in use by another process"):
        reopen(path)
    os.close(held)
    reopen(path)


def reopen(path: Path) -> None:
    if path.name == "wal":
        env, lock_fd = open_log(path, MAP_SIZE, wait_s=0.0)
        env.close()
        os.close(lock_fd)
    else:
        open_state(path, pytest.fail, map_size=MAP_SIZE, wait_s=0.0).close()


def test_a_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wal").mkdir(mode=0o755)
    (tmp_path / "wal").chmod(0o755)
    with pytest.raises(DataDirError, match="chmod 0700"):
        open_log(tmp_path / "wal", MAP_SIZE)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataDirError, match=r"cannot create .*file/wal"):
        open_log(tmp_path / "file" / "wal", MAP_SIZE)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_remote_filesystem_is_refused(tmp_path: Path, kind: str) -> None:
    device = os.stat(tmp_path).st_dev
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        f"36 35 {os.major(device)}:{os.minor(device)} / {tmp_path} rw shared:1 - {kind} there rw\n"
    )
    with pytest.raises(DataDirError, match=f"remote filesystem \\({kind}\\)"):
        refuse_remote(tmp_path, str(mountinfo))


def test_a_local_filesystem_is_known(tmp_path: Path) -> None:
    assert filesystem_of(tmp_path, str(tmp_path / "none")) == ""
    refuse_remote(tmp_path)


@pytest.fixture
def disk() -> Iterator[Path]:
    """A filesystem of two megabytes."""
    with small_disk("2m") as folder:
        yield folder


@pytest.mark.integration
def test_a_full_disk_stops_the_log_and_loses_nothing(disk: Path) -> None:
    failures: list[str] = []
    told: list[int] = []
    calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
    env, lock_fd = open_log(disk / "wal", MAP_SIZE)
    journal = begin_journal(env, disk / "wal", MAP_SIZE, bytes(8), 1 << 18)
    writer = JournalWriter(env, journal, MAP_SIZE, lambda: 0.0, calls.put, failures.append)
    log = LmdbLog(env, writer, lock_fd=lock_fd)
    for index in range(1, 1000):
        log.append(None, [Entry(1, index, 0, bytes(20_000))], lambda: told.append(len(told) + 1))
        while len(told) < index and not failures:
            with suppress(Empty):
                calls.get(timeout=0.05)()
    assert len(failures) == 1
    assert "log commit failed" in failures[0]
    log.close()
    with pytest.raises(DataDirError, match="free space"):
        open_whole_log(disk / "wal")
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    again = open_whole_log(disk / "wal")
    assert told[-1] == len(told)
    assert again.last_index() in (told[-1], told[-1] + 1), "the last one may have become durable"
    last = again.last_index()
    assert all(len(entry.data) == 20_000 for entry in again.entries(1, last + 1, 1 << 40))
    again.close()
