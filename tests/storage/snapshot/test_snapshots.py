"""Snapshots of a running member, with its real processes: out while it writes, in and adopted."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from etcdtw.bbolt.check import check
from etcdtw.bbolt.reader import BboltFile
from etcdtw.storage.state.open import open_state
from tests.support.bbolt_rig import read_file, read_from, write_file
from tests.support.state_rows import fail

pytestmark = pytest.mark.integration

PRELUDE = """
import os, sys
from pathlib import Path
from twisted.internet import reactor
from etcdtw.storage.building.from_bbolt import SnapshotFacts
from etcdtw.storage.state.open import open_state
from etcdtw.storage.writer.process import ProcessStateWriter
from etcdtw.storage.snapshot.snapshots import EXPORTS_MAX, StateSnapshots
from etcdtw.wire.mvccpb import KeyValue

def stop(reason):
    print("stopped:", reason, flush=True)
    os._exit(9)

folder = Path(sys.argv[1])
path = folder / "state"
MAP_SIZE = 1 << 27
def make(path, map_size, lock_fd):
    return ProcessStateWriter(reactor, path, map_size, lock_fd)
state = open_state(path, stop, make, map_size=MAP_SIZE)
snapshots = StateSnapshots(reactor, state, path, MAP_SIZE, stop)
ended = []
def put(main, size=100):
    if ended:  # timed calls that were due come once more after reactor.stop()
        return
    key = b"k%06d" % main
    record = KeyValue(
        key=key, create_revision=main, mod_revision=main, version=1, value=bytes(size)
    )
    state.put(main, 0, key, record.SerializeToString(), True)
    state.set_applied(main, 3)
def end():
    ended.append(True)
    snapshots.close()
    state.close()
    reactor.stop()
reactor.callLater(40, stop, "it takes too long")
"""


def run_to_its_end(tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run a member's process, however it ends."""
    return subprocess.run(
        [sys.executable, "-u", "-c", PRELUDE + textwrap.dedent(body), str(tmp_path)],
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
    )


def run(tmp_path: Path, body: str) -> list[str]:
    """Run a member's process; returns what it printed."""
    done = run_to_its_end(tmp_path, body)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return done.stdout.split("\n")[:-1]


def test_an_export_covers_its_index_while_writes_go_on(tmp_path: Path) -> None:
    lines = run(
        tmp_path,
        """
        for main in range(2, 5002): put(main)
        def done(export):
            print(export.index, export.term, export.size)
            state.flush(end)
        snapshots.export(folder / "file", done)
        def go_on(main=5002):
            if main < 6002:
                for i in range(main, main + 50): put(i)
                reactor.callLater(0.01, go_on, main + 50)
        go_on()
        reactor.run()
        """,
    )
    index, term, size = map(int, lines[0].split())
    octets = (tmp_path / "file").read_bytes()
    assert (term, size) == (3, len(octets))
    check(BboltFile(read_from(octets), size))
    content = read_file(octets)
    # Exactly what the index covers: entry n wrote revision n.
    assert index >= 5001
    assert [int.from_bytes(name[:8], "big") for name, _ in content[b"key"]] == [
        *range(2, index + 1)
    ]


def test_a_built_state_is_adopted_and_everything_in_memory_forgotten(tmp_path: Path) -> None:
    rows = [((9).to_bytes(8, "big") + b"_" + bytes(8), b"\x0a\x03new\x10\x09\x18\x09\x20\x01")]
    meta = [(b"consistent_index", (900).to_bytes(8, "big")), (b"term", (8).to_bytes(8, "big"))]
    (tmp_path / "source").write_bytes(write_file({b"key": rows, b"meta": meta}))
    lines = run(
        tmp_path,
        """
        for main in range(2, 3002): put(main)
        state.bucket_put(b"alarm", b"x", b"")
        def compacted(): print("compacted")
        def flushed(): print("flushed")
        def built(install):
            print("built", install.index, install.term, install.revision)
            # In memory, on its way, and scheduled: all of it belongs to the old state.
            put(4000)
            state.bucket_put(
                b"meta", b"scheduledCompactRev", (2000).to_bytes(8, "big") + b"_" + bytes(8)
            )
            state.schedule_compaction(2000)
            state.flush(flushed)
            put(4001)
            state.on_compacted(2000, compacted)
            snapshots.build(folder / "source", SnapshotFacts(), print)
            snapshots.adopt(adopted)
            state.flush(flushed)
            state.tick(0); state.tick(5000)
            print("still", len(state.keys(b"", None)) > 1)
        def adopted():
            print("adopted", state.applied_index, state.applied_term, state.revision)
            print(state.keys(b"", None), state.count(b"", None), state.bucket_items(b"alarm"))
            print(len(state.changes_from(0, 0, 5000, 9)), state.get_at(b"new", 9) is not None)
            put(10)
            state.set_applied(901, 8)
            state.hash_kv(10, 0, hashed)
        def hashed(crc):
            print("hashed", state.applied_durable)
            end()
        snapshots.build(folder / "source", SnapshotFacts(900), built)
        reactor.run()
        """,
    )
    assert lines == [
        "built 900 8 9",
        "another snapshot is being installed already",
        "still True",
        "flushed",
        "flushed",
        "compacted",
        "adopted 900 8 9",
        "[b'new'] 1 []",
        "1 True",
        "hashed 901",
    ]
    state = open_state(tmp_path / "state", fail, map_size=1 << 27)
    assert (state.applied_index, state.keys(b"", None)) == (901, [b"k000010", b"new"])
    state.close()


def test_what_cannot_be_exported_or_built_is_said(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(8192))
    lines = run(
        tmp_path,
        """
        put(2)
        def refused(reason):
            print(reason)
            snapshots.build(folder / "source", SnapshotFacts(), unbuilt)
        def unbuilt(reason):
            print(reason)
            for i in range(EXPORTS_MAX):
                snapshots.export(folder / f"file{i}", lambda export: None)
            snapshots.export(folder / "one more", print)
            end()
        snapshots.export(folder / "nowhere" / "file", refused)
        reactor.run()
        """,
    )
    assert "No such file or directory" in lines[0]
    assert lines[1:] == [
        "not a bbolt database: wrong magic",
        "4 snapshots are being taken already; try again later",
    ]
    assert list(tmp_path.glob("state/building*")) == []


def test_children_end_with_the_member_and_with_being_killed(tmp_path: Path) -> None:
    lines = run(
        tmp_path,
        """
        import signal
        for main in range(2, 8002): put(main, 2000)
        def done(reason):
            print(reason)
            snapshots.export(folder / "other", print)
            state.flush(lambda: reactor.callLater(0.05, closing))
        def closing():
            pids = [child.pid for child in snapshots._exports]
            end()
            for pid in pids:
                print("alive" if Path(f"/proc/{pid}").exists() else "gone")
        def kill():
            for child in list(snapshots._exports): os.kill(child.pid, signal.SIGKILL)
        snapshots.export(folder / "file", done)
        state.flush(kill)
        reactor.run()
        """,
    )
    assert lines == ["the process ended with status -9 and no answer", "gone"]


def write_snapshot(path: Path) -> None:
    """Write a snapshot of one key, ``new``, at index 900."""
    rows = [((9).to_bytes(8, "big") + b"_" + bytes(8), b"\x0a\x03new\x10\x09\x18\x09\x20\x01")]
    meta = [(b"consistent_index", (900).to_bytes(8, "big")), (b"term", (8).to_bytes(8, "big"))]
    path.write_bytes(write_file({b"key": rows, b"meta": meta}))


ADOPTION = """
import time
from contextlib import suppress
data = path / "data.mdb"
def inode(): return os.stat(data).st_ino
def wait_for_another(old):
    while inode() == old: time.sleep(0.001)
def old_files():
    found = []
    for fd in Path(f"/proc/{state._writer.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(fd))
    return [name for name in found if name.endswith("data.mdb (deleted)")]
def adopted():
    print("adopted", state.applied_index, state.revision, state.keys(b"", None))
    put(10)
    state.set_applied(901, 8)
    state.defragment(defragmented_again)
def defragmented_again(error):
    print("again", repr(error), state.applied_durable, state.keys(b"", None))
    gone()
def gone():
    if old_files(): reactor.callLater(0.01, gone)
    else: end()
def fill(built):
    for main in range(2, 3002): put(main)
    state.flush(lambda: snapshots.build(folder / "source", SnapshotFacts(900), built))
"""
ADOPTED = [
    "adopted 900 9 [b'new']",
    "again '' 901 [b'k000010', b'new']",
]


def check_adopted(tmp_path: Path) -> None:
    state = open_state(tmp_path / "state", fail, map_size=1 << 27)
    assert (state.applied_index, state.keys(b"", None)) == (901, [b"k000010", b"new"])
    state.close()
    assert list((tmp_path / "state").glob("built-*")) == []
    assert not (tmp_path / "state" / "new").exists()


def test_generations_that_queue_are_forgotten_when_a_state_is_adopted(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "source")
    lines = run(
        tmp_path,
        ADOPTION
        + """
from etcdtw.storage.state.overlay import GENERATION_CHANGES_MAX
def built(install):
    state.defragment(lambda error: print(error))
    for main in range(4000, 4000 + 4 * GENERATION_CHANGES_MAX): put(main)
    put(99_999)
    print("queued", len(state._closed.generations))
    state.flush(lambda: print("flushed", len(state.keys(b"", None))))
    snapshots.adopt(adopted)
    watch()
def watch():
    # Nothing leaves the overlay until the other state is there.
    if state.applied_index == 99_999:
        assert len(state._closed.generations) == 4
        assert state.get(b"k004000") and state.get(b"k099999")
        assert state.count(b"", None) == 3001 + 4 * GENERATION_CHANGES_MAX
        reactor.callLater(0, watch)
fill(built)
reactor.run()
""",
    )
    superseded = "a snapshot is about to take the place of this state"
    assert lines[0] == "queued 4"
    assert lines[1] in ("", superseded)  # its last step may come before the adoption is asked for
    assert lines[2:] == ["flushed 1", *ADOPTED]
    check_adopted(tmp_path)


def test_the_end_of_a_defragmentation_heard_amid_an_adoption_shows_no_other_state(
    tmp_path: Path,
) -> None:
    write_snapshot(tmp_path / "source")
    lines = run(
        tmp_path,
        ADOPTION
        + """
def built(install):
    first = inode()
    state.defragment(defragmented)
    wait_for_another(first)
    put(4000)
    state.flush(lambda: None)
    second = inode()
    snapshots.adopt(adopted)
    wait_for_another(second)
def defragmented(error):
    print(repr(error), state.count(b"", None), len(state.keys(b"", None)))
    print(state.get(b"new"), state.get(b"k002000")[:3], len(state.changes_from(1, 0, 5000, 9999)))
fill(built)
reactor.run()
""",
    )
    assert lines == ["'' 3001 3001", "None b'\\n\\x07k' 3001", *ADOPTED]
    check_adopted(tmp_path)


def test_an_export_goes_on_though_a_defragmentation_shrinks_the_file(tmp_path: Path) -> None:
    lines = run(
        tmp_path,
        ADOPTION
        + """
import signal
def exported(export):
    print(export.index, old_files())
    end()
def started():
    target = folder / "file"
    if target.exists() and target.stat().st_size > 1 << 20:
        child = list(snapshots._exports)[0]
        os.kill(child.pid, signal.SIGSTOP)
        state.defragment(lambda error: defragmented(error, child.pid))
    else:
        reactor.callLater(0.001, started)
def defragmented(error, pid):
    print(repr(error))
    shrunk(pid)
def shrunk(pid):
    if old_files(): reactor.callLater(0.01, shrunk, pid)
    else: os.kill(pid, signal.SIGCONT)
for main in range(2, 10_002): put(main, 2000)
snapshots.export(folder / "file", exported)
reactor.callLater(0, started)
reactor.run()
""",
    )
    assert lines == ["''", "10001 []"]
    octets = (tmp_path / "file").read_bytes()
    check(BboltFile(read_from(octets), len(octets)))
    names = [int.from_bytes(name[:8], "big") for name, _ in read_file(octets)[b"key"]]
    assert names == [*range(2, 10_002)]


SHORTAGE = """
import resource, tempfile
tempfile.gettempdir()  # looked for once
SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)
def open_files(): return len(os.listdir("/proc/self/fd"))
def run_short():
    # The lowest descriptor that is free is the first that is refused.
    fd = os.open("/", os.O_RDONLY)
    os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (fd, HARD))
def recover(): resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, HARD))
"""


def test_process_that_cannot_be_started_is_the_askers_error_and_nothing_else(
    tmp_path: Path,
) -> None:
    write_snapshot(tmp_path / "source")
    lines = run(
        tmp_path,
        SHORTAGE
        + """
reactor.callWhenRunning(lambda: begin())
def begin():
    put(2)
    state.flush(short)
def short():
    global before
    before = open_files()
    run_short()
    put(3)
    for i in range(EXPORTS_MAX + 1):
        snapshots.export(folder / f"file{i}", refused)
refusals = []
def refused(why):
    refusals.append(why)
    if len(refusals) == EXPORTS_MAX + 1:
        snapshots.build(folder / "source", SnapshotFacts(900), unbuilt)
def unbuilt(why):
    refusals.append(why)
    recover()
    print(open_files() - before)
    for why in refusals: print(why)
    put(4)
    snapshots.export(folder / "file", exported)
def exported(export):
    print(export.index, state.applied_durable)
    snapshots.build(folder / "source", SnapshotFacts(900), built)
def built(install):
    print(install.index)
    end()
reactor.run()
""",
    )
    assert lines[0] == "0"
    assert lines[1] == "4 snapshots are being taken already; try again later"
    for line in lines[2:7]:
        assert line.startswith("no process could be started: [Errno 24] Too many open files")
    assert lines[7:] == ["4 4", "900"]
    assert not list(tmp_path.glob("file?"))


def test_what_a_snapshot_leads_to_and_that_raises_stops_the_member(tmp_path: Path) -> None:
    body = """
    put(2)
    def broken(found): raise ZeroDivisionError("a defect")
    snapshots.export(folder / "file", broken)
    reactor.run()
    """
    done = run_to_its_end(tmp_path, body)
    assert done.returncode == 9
    assert done.stdout == (
        "stopped: what waited for a snapshot failed: a defect; report this with the lines above\n"
    )
