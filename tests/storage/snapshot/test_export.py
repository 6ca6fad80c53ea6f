"""The state as etcd's database file: the same rows, and the index that covers them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from etcdtw.bbolt.check import check
from etcdtw.bbolt.reader import BboltFile
from etcdtw.storage.snapshot.export import FLUSH_SIZE, REST_S_MAX, export
from etcdtw.storage.state.open import open_state
from tests.support.bbolt_rig import Content, read_file, read_from
from tests.support.state_rows import (
    CONF_STATE,
    INDEX,
    MAP_SIZE,
    TERM,
    fail,
    make_state,
    open_tables,
    rows_of,
)

ETCD_BUCKETS = [
    b"alarm", b"auth", b"authRoles", b"authUsers", b"cluster", b"key", b"lease", b"members",
    b"members_removed", b"meta",
]  # fmt: skip


def exported(path: Path, target: Path, storage_version: bytes = b"") -> Content:
    tables = open_tables(path)
    done = export(tables, target, storage_version)
    tables.env.close()
    octets = target.read_bytes()
    assert done.size == len(octets)
    assert (done.index, done.term, done.conf_state) == (INDEX, TERM, CONF_STATE)
    check(BboltFile(read_from(octets), len(octets)))
    return read_file(octets)


def test_the_file_holds_exactly_etcds_buckets_and_their_rows(tmp_path: Path) -> None:
    make_state(tmp_path / "state", 1)
    content = exported(tmp_path / "state", tmp_path / "file")
    tables = open_tables(tmp_path / "state")
    rows = rows_of(tables)
    tables.env.close()
    assert list(content) == ETCD_BUCKETS
    assert content == {name: rows[name] for name in ETCD_BUCKETS}
    assert dict(content[b"meta"])[b"consistent_index"] == INDEX.to_bytes(8, "big")
    assert dict(content[b"meta"])[b"term"] == TERM.to_bytes(8, "big")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_the_storage_version_is_what_the_caller_says(tmp_path: Path) -> None:
    make_state(tmp_path / "state", 2, 3)
    state = open_state(tmp_path / "state", fail, map_size=MAP_SIZE)
    state.bucket_put(b"meta", b"storageVersion", b"9.9.0")
    state.flush(lambda: None)
    state.close()
    for version in (b"", b"3.6.0"):
        content = exported(tmp_path / "state", tmp_path / "file", version)
        assert dict(content[b"meta"]).get(b"storageVersion", b"") == version


def test_an_empty_state_is_a_file_too(tmp_path: Path) -> None:
    open_state(tmp_path / "state", fail, map_size=MAP_SIZE).close()
    tables = open_tables(tmp_path / "state")
    done = export(tables, tmp_path / "file")
    tables.env.close()
    assert (done.index, done.term, done.conf_state) == (0, 0, b"")
    assert read_file((tmp_path / "file").read_bytes())[b"key"] == []


def test_large_files_are_flushed_in_parts_with_rests(tmp_path: Path) -> None:
    make_state(tmp_path / "state", 3, 3)
    state = open_state(tmp_path / "state", fail, map_size=MAP_SIZE)
    value = bytes(FLUSH_SIZE // 4)
    for main in range(1000, 1016):
        state.put(main, 0, b"big", b"\x0a\x03big" + value, False)
    state.flush(lambda: None)
    state.close()
    tables = open_tables(tmp_path / "state")
    times = iter([0.0, 0.2, 1.0, 9.0] + [9.0] * 20)
    rests: list[float] = []
    export(tables, tmp_path / "file", b"", lambda: None, lambda: next(times), rests.append)
    tables.env.close()
    assert rests[:2] == [0.2, REST_S_MAX]
    assert len(rests) in (3, 4)


def test_nothing_is_left_when_nobody_wants_the_file_any_more(tmp_path: Path) -> None:
    make_state(tmp_path / "state", 4, 3)
    tables = open_tables(tmp_path / "state")

    def not_wanted() -> None:
        raise InterruptedError

    fds = os.listdir("/proc/self/fd")
    with pytest.raises(InterruptedError):
        export(tables, tmp_path / "file", b"", not_wanted)
    assert len(os.listdir("/proc/self/fd")) == len(fds)
    assert not (tmp_path / "file").exists()
    tables.env.close()
