"""A snapshot that is no file: the same octets, as fast as they are taken, and an end to it."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest

from etcdtw.storage.rows.codec import BUCKETS as BUCKET_NAMES
from etcdtw.storage.rows.codec import TABLE_KEY
from etcdtw.storage.snapshot.export import SnapshotExport, export
from etcdtw.storage.snapshot.stream import stream
from tests.storage.snapshot.test_snapshots import run, run_to_its_end
from tests.support.state_rows import CONF_STATE, INDEX, TERM, make_state, open_tables, rows_of

BUCKETS = [b"members", b"cluster"]


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_the_octets_are_those_of_the_file_and_the_facts_come_first(
    tmp_path: Path, seed: int
) -> None:
    make_state(tmp_path / "state", seed)
    tables = open_tables(tmp_path / "state")
    export(tables, tmp_path / "file")
    expected = (tmp_path / "file").read_bytes()
    told: list[object] = []
    octets: list[bytes] = []

    def tell(facts: SnapshotExport, rows: object) -> None:
        assert not octets
        told.append((facts, rows))

    stream(tables, BUCKETS, tell, octets.append)
    rows = rows_of(tables)
    tables.env.close()
    assert b"".join(octets) == expected
    facts = SnapshotExport(len(expected), INDEX, TERM, CONF_STATE)
    assert told == [(facts, [rows[name] for name in BUCKETS])]


@pytest.mark.parametrize("missing", [0, 1])
def test_a_file_that_plainly_does_not_fit_is_not_begun(tmp_path: Path, missing: int) -> None:
    make_state(tmp_path / "state", 1)
    tables = open_tables(tmp_path / "state")
    with tables.env.begin() as txn:
        stats = [txn.stat(handle) for name, handle in tables.handles.items() if name in ETCDS]
    used = sum((one["leaf_pages"] + one["overflow_pages"]) * one["psize"] for one in stats)
    target = tmp_path / "file"
    if missing:
        with pytest.raises(OSError, match="no room for a snapshot") as found:
            export(tables, target, free=lambda _: used // 2 - 1)
        assert found.value.errno == errno.ENOSPC
    else:
        export(tables, target, free=lambda _: used // 2)
    tables.env.close()
    assert target.exists() is not bool(missing)


ETCDS = frozenset((*BUCKET_NAMES, TABLE_KEY))

PRELUDE = """
def whole(found, then, octets=b""):
    def taken(data):
        if data:
            whole(found, then, octets + data)
        else:
            then(octets)
    found.read(1 << 18).addCallback(taken)
for main in range(2, 3002): put(main, 1000)
"""


def member(body: str) -> str:
    return PRELUDE + body


processes = pytest.mark.integration


@processes
def test_a_stream_of_a_running_member_is_the_export_of_its_index(tmp_path: Path) -> None:
    lines = run(
        tmp_path,
        member(
            """
def opened(found):
    def compare(octets):
        found.close()
        print(len(octets) == found.export.size > 3_000_000, found.export.index, found.buckets)
        def done(export):
            print((folder / "file").read_bytes() == octets)
            state.flush(end)
        snapshots.export(folder / "file", done)
    whole(found, compare)
snapshots.stream([b"members"], opened)
reactor.run()
"""
        ),
    )
    assert lines == ["True 3001 [[]]", "True"]


@processes
def test_one_stream_at_a_time_and_it_ends_when_it_is_closed(tmp_path: Path) -> None:
    lines = run(
        tmp_path,
        member(
            """
def opened(found):
    snapshots.stream([], lambda why: print(why))
    pid = found.pid
    def taken(data):
        print(0 < len(data) <= 1 << 18)
        found.close()
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            print("gone")
        def again(other):
            other.close()
            end()
        snapshots.stream([], again)
    reactor.callLater(0.5, lambda: found.read(1 << 18).addCallback(taken))
snapshots.stream([], opened)
reactor.run()
"""
        ),
    )
    assert lines == ["another snapshot is being streamed already; try again later", "True", "gone"]


@processes
def test_a_stream_that_nobody_reads_ends_after_its_longest_time(tmp_path: Path) -> None:
    script = tmp_path / "short.py"
    script.write_text(
        "import os, signal, sys, marshal\n"
        "from etcdtw.storage.snapshot import stream\n"
        "stream.STREAM_S_MAX = 1\n"
        "os._exit(stream.main(sys.argv[1:]))\n"
    )
    lines = run(
        tmp_path,
        member(
            f"""
import subprocess
popen = subprocess.Popen
def short(command, **more):
    return popen([command[0], {str(script)!r}, command[3]], **more)
subprocess.Popen = short
def opened(found):
    def read():
        whole(found, lambda octets: (print(len(octets) < found.export.size), found.close(), end()))
    reactor.callLater(2, read)
snapshots.stream([], opened)
reactor.run()
"""
        ),
    )
    assert lines == ["True"]


@processes
def test_a_stream_ends_with_its_member(tmp_path: Path) -> None:
    done = run_to_its_end(
        tmp_path,
        member(
            """
def opened(found):
    print(found.pid)
    os._exit(0)
snapshots.stream([], opened)
reactor.run()
"""
        ),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pid = int(done.stdout)
    for _ in range(50):
        found = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True
        )
        if not found.stdout.strip() or found.stdout.startswith("Z"):
            return
        subprocess.run(["sleep", "0.1"], check=False)
    pytest.fail("the process goes on without its member")


@processes
def test_what_cannot_be_streamed_is_said(tmp_path: Path) -> None:
    lines = run(
        tmp_path,
        member(
            """
def flushed():
    os.rename(path / "data.mdb", path / "hidden")
    def opened(why):
        print(isinstance(why, str) and bool(why))
        os.rename(path / "hidden", path / "data.mdb")
        end()
    snapshots.stream([], opened)
state.flush(flushed)
reactor.run()
"""
        ),
    )
    assert lines == ["True"]


@processes
def test_a_stream_that_was_read_to_its_end_and_is_closed_late_does_not_make_room_for_a_third(
    tmp_path: Path,
) -> None:
    lines = run(
        tmp_path,
        member(
            """
def opened(first):
    def read(_):
        def other(second):
            first.close()  # its receiver has answered late
            snapshots.stream([], print)
            second.close()
            end()
        snapshots.stream([], other)
    whole(first, read)
snapshots.stream([], opened)
reactor.run()
"""
        ),
    )
    assert lines == ["another snapshot is being streamed already; try again later"]


@processes
def test_a_stream_that_is_ended_keeps_no_pages_of_the_state(tmp_path: Path) -> None:
    lines = run(
        tmp_path,
        member(
            """
reads = state.stats.open_reads
def opened(found):
    before = reads()
    found.close()
    print(before - reads())
    end()
snapshots.stream([], opened)
reactor.run()
"""
        ),
    )
    assert lines == ["1"]
