"""The log and the state of one member, opened together: what is refused, and what is said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from etcdtw.config.config import configure
from etcdtw.raft.entry import ENTRY_NORMAL, Entry
from etcdtw.server.start.bootstrap import BootstrapError, Identity, encode_identity
from etcdtw.server.start.data import _check_together, open_data
from etcdtw.storage.disk.directory import META_SIZE, DataDirError, lock_directory
from etcdtw.storage.log.codec import KEY_IDENTITY, encode_small
from etcdtw.storage.log.log import open_log
from etcdtw.storage.presence import ETCD_SNAPSHOTS, GUARD_TEXT, MARK_FILE
from etcdtw.storage.state.open import open_state
from etcdtw.storage.writer.feed import Message
from tests.support.node_rig import MemoryLog
from tests.support.recorded import NAMES, unpack


def log_of(last: int, compacted: int) -> MemoryLog:
    log = MemoryLog()
    entries = [Entry(1, index, ENTRY_NORMAL, b"") for index in range(1, last + 1)]
    log.append(None, entries, lambda: None)
    if compacted:
        log.compact(compacted)
    return log


def check(log: MemoryLog, path: Path, applied: int) -> None:
    state = open_state(path, lambda reason: None, map_size=1 << 24)
    try:
        state.set_applied(applied, 1)
        _check_together(log, state)  # type: ignore[arg-type]
    finally:
        state.close()


@pytest.mark.parametrize("applied", [10, 15, 20])
def test_state_within_the_log_is_taken(tmp_path: Path, applied: int) -> None:
    check(log_of(20, 10), tmp_path / "state", applied)


def test_new_state_is_taken_with_a_whole_log(tmp_path: Path) -> None:
    check(log_of(20, 0), tmp_path / "state", 0)


@pytest.mark.parametrize(
    ("applied", "text"),
    [
        (0, "the state is empty, but the log begins at 11"),
        (9, "the state holds entry 9, but the log begins at 11"),
        (21, "the state holds entry 21, but the log ends at 20"),
    ],
)
def test_state_without_its_part_of_the_log_is_refused(
    tmp_path: Path, applied: int, text: str
) -> None:
    with pytest.raises(DataDirError, match=text):
        check(log_of(20, 10), tmp_path / "state", applied)


def not_called(*arguments: object) -> NoReturn:
    pytest.fail("nothing is opened")


def test_first_start_that_was_cut_off_does_not_meet_other_founders(tmp_path: Path) -> None:
    """Before `found_log` the identity was written alone, then the entries."""
    env, lock_fd = open_log(tmp_path / "data" / "member" / "wal")
    with env.begin(write=True) as txn:
        txn.put(KEY_IDENTITY, encode_small(encode_identity(Identity(1, 2))))
    env.close()
    os.close(lock_fd)
    arguments = ["--data-dir", str(tmp_path / "data")]
    with pytest.raises(DataDirError, match=r"first start was cut off.*start again"):
        open_data(configure(arguments, {}, lambda path: b""), float, not_called, not_called)
    open_log(tmp_path / "data" / "member" / "wal")[0].close()  # it was let go of


class SilentWriter:
    """A state writer for data that is only opened."""

    def start(self, receive: Callable[[Message], None]) -> None:
        """Nothing is ever told."""

    def send(self, message: Message) -> None:
        """Nothing becomes durable."""

    def soon(self, then: Callable[[], None]) -> None:
        """No reactor."""

    def close(self) -> None:
        """Nothing is open."""


class Directories:
    """A data directory and, elsewhere, that of its log."""

    def __init__(self, top: Path, has_wal_dir: bool) -> None:
        self.data = top / "data"
        self.wal = top / "wal" if has_wal_dir else self.data / "member" / "wal"
        self.has_wal_dir = has_wal_dir
        self.state = self.data / "member" / "state"

    def open(self, *flags: str) -> Identity:
        wal_dir = ["--wal-dir", str(self.wal)] if self.has_wal_dir else []
        arguments = ["--data-dir", str(self.data), *wal_dir, *flags]
        data = open_data(
            configure(arguments, {}, lambda path: b""),
            float,
            lambda call: call(),
            lambda path, map_size, lock_fd: SilentWriter(),
        )
        data.close()
        return data.identity

    def lose(self, what: str) -> None:
        """``log``, ``log files``, ``log zeros``, and the same of the state."""
        name, _, how = what.partition(" ")
        folder = self.wal if name == "log" else self.state
        if not how:
            shutil.rmtree(folder)
        elif how == "files":
            for file in folder.iterdir():
                if file.is_file():
                    file.unlink()
        else:
            (folder / "data.mdb").write_bytes(bytes(META_SIZE) if how == "zeros" else b"")

    def content(self) -> dict[str, bytes]:
        return {
            str(file): file.read_bytes()
            for top in (self.data, self.wal)
            for file in top.rglob("*")
            if file.is_file() and not file.name.startswith("journal.")
        }


@pytest.mark.parametrize("has_wal_dir", [False, True])
@pytest.mark.parametrize(
    ("lost", "text"),
    [
        (("log",), "its log is missing"),
        (("log files",), "its log is missing"),
        (("log zeros",), "its log is missing"),
        (("log empty",), "its log is missing"),
        (("state",), "its state is missing"),
        (("state files",), "its state is missing"),
        (("state zeros",), "its state is missing"),
        (("state empty",), "its state is missing"),
        (("log", "state"), "its log is missing"),
        (("log files", "state files"), "its log is missing"),
    ],
)
def test_a_member_that_has_run_is_refused_without_its_log_or_its_state(
    tmp_path: Path, has_wal_dir: bool, lost: tuple[str, ...], text: str
) -> None:
    directories = Directories(tmp_path, has_wal_dir)
    identity = directories.open()
    assert directories.open() == identity
    for what in lost:
        directories.lose(what)
    left = directories.content()
    for _ in range(2):
        with pytest.raises(DataDirError, match=rf"{text}.* let it join again"):
            directories.open()
    assert directories.content() == left, "a refused start changes nothing"


def test_a_log_elsewhere_that_outlives_its_data_directory_is_refused(tmp_path: Path) -> None:
    directories = Directories(tmp_path, True)
    directories.open()
    shutil.rmtree(directories.data)
    with pytest.raises(DataDirError, match="its state is missing"):
        directories.open()


def test_a_forgotten_wal_dir_is_named(tmp_path: Path) -> None:
    directories = Directories(tmp_path, True)
    directories.open()
    directories.has_wal_dir = False
    with pytest.raises(DataDirError, match=rf"log is missing.*it was in {directories.wal}"):
        directories.open()


def test_a_log_that_was_moved_is_found_where_the_flag_says(tmp_path: Path) -> None:
    directories = Directories(tmp_path, True)
    identity = directories.open()
    directories.wal = directories.wal.rename(tmp_path / "elsewhere")
    assert directories.open() == identity
    directories.has_wal_dir = False
    with pytest.raises(DataDirError, match=r"it was in .*/elsewhere"):
        directories.open()


def test_the_log_of_another_member_is_refused_whoever_is_at_the_same_index(
    tmp_path: Path,
) -> None:
    one, other = Directories(tmp_path / "one", True), Directories(tmp_path / "other", True)
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    mine = one.open()
    theirs = other.open("--initial-cluster-token", "another")
    one.wal, other.wal = other.wal, one.wal
    with pytest.raises(DataDirError, match=f"member {theirs[0]:x} of .* member {mine[0]:x} of"):
        one.open()


def test_a_fresh_log_in_the_place_of_one_that_was_used_founds_nothing(tmp_path: Path) -> None:
    directories = Directories(tmp_path, True)
    directories.open()
    shutil.rmtree(directories.wal)
    env, lock_fd = open_log(directories.wal)
    env.close()
    os.close(lock_fd)
    with pytest.raises(DataDirError, match="its log is missing: the one in"):
        directories.open()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", ["log", "log files", "log zeros"])
def test_a_directory_of_an_earlier_format_without_its_log_is_refused(
    tmp_path: Path, name: str, what: str
) -> None:
    directories = Directories(tmp_path, False)
    unpack(name, directories.data)
    directories.lose(what)
    with pytest.raises(DataDirError, match="its log is missing"):
        directories.open()


def test_a_first_start_that_ended_before_there_was_a_state_is_gone_on_with(
    tmp_path: Path,
) -> None:
    directories = Directories(tmp_path, False)
    identity = directories.open()
    shutil.rmtree(directories.state)
    for folder in (directories.wal, directories.data / "member"):
        (folder / MARK_FILE).unlink()
    assert directories.open() == identity


def test_what_a_killed_member_was_receiving_is_deleted_before_anything_grows(
    tmp_path: Path,
) -> None:
    directories = Directories(tmp_path, False)
    directories.open()
    earlier = directories.data / "member" / ETCD_SNAPSHOTS
    earlier.unlink()
    earlier.mkdir(mode=0o700)
    (earlier / "0000000000000007.snap.db.3.part").write_bytes(b"left")
    snapshots = directories.data / "member" / "snapshots"
    left = ["0000000000000007.snap.db.3.part", "0000000000000007.snap.db", "01.out.db"]
    snapshots.mkdir()
    for name in left:
        (snapshots / name).write_bytes(b"left")
    for name in ("building", "new"):
        (directories.state / name).mkdir()
        (directories.state / name / "data.mdb").write_bytes(b"left")
    (directories.wal / "data.mdb").write_bytes(b"not LMDB's")
    with pytest.raises(DataDirError, match="is not an LMDB file"):
        directories.open()
    assert list(snapshots.iterdir()) == []
    assert earlier.read_bytes() == GUARD_TEXT
    assert [file.name for file in directories.state.iterdir() if file.is_dir()] == []


@pytest.mark.parametrize("place", ["data", "wal"])
def test_a_directory_in_use_keeps_what_it_is_receiving(tmp_path: Path, place: str) -> None:
    directories = Directories(tmp_path, place == "wal")
    directories.open()
    part = directories.data / "member" / "snapshots" / "0000000000000007.snap.db.3.part"
    part.parent.mkdir()
    part.write_bytes(b"arriving")
    lock_fd = lock_directory(directories.wal)
    with pytest.raises(DataDirError, match="in use by another process"):
        directories.open()
    assert part.exists()
    os.close(lock_fd)


def test_the_log_of_real_etcd_is_refused_where_wal_dir_points_at_it(tmp_path: Path) -> None:
    directories = Directories(tmp_path, True)
    directories.wal.mkdir(mode=0o700)
    (directories.wal / "0000000000000000-0000000000000000.wal").write_bytes(b"etcd's")
    with pytest.raises(BootstrapError, match=r"--wal-dir .* holds the log of real etcd"):
        directories.open()
    assert len(list(directories.wal.iterdir())) == 1
