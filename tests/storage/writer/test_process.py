"""The writer process under a real reactor: commits, failures, and who outlives whom."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import cast

import pytest
from twisted.internet.interfaces import IReactorFDSet

from etcdtw.storage.disk.directory import DataDirError
from etcdtw.storage.state.generation_queue import PIECE_OCTETS
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.overlay import GENERATION_OCTETS_MAX
from etcdtw.storage.writer.main import MessageReader, encode_message
from etcdtw.storage.writer.process import ProcessStateWriter

pytestmark = pytest.mark.integration

PRELUDE = """
import os, sys
from pathlib import Path
from twisted.internet import reactor
from etcdtw.storage.state.open import open_state
from etcdtw.storage.writer.process import ProcessStateWriter
from etcdtw.wire.pieces import STATE, Pieces

pieces = Pieces()
def stop(reason):
    print("stopped:", reason, flush=True)
    os._exit(9)

path = Path(sys.argv[1])
made = []
def make(path, map_size, lock_fd):
    made.append(ProcessStateWriter(reactor, path, map_size, lock_fd, pieces=pieces))
    return made[0]
state = open_state(path, stop, make, map_size=int(sys.argv[2]))
def put(main, size=100):
    key = b"k%06d" % main
    state.put(main, 0, key, b"\\x0a\\x07" + key + bytes(size), True)
"""


def run(tmp_path: Path, body: str, map_size: int = 1 << 26) -> subprocess.CompletedProcess[str]:
    script = PRELUDE + textwrap.dedent(body)
    arguments = [sys.executable, "-c", script, str(tmp_path / "state"), str(map_size)]
    # Files, not pipes: a writer process that outlives its member holds these open.
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as out_file, err.open("w") as err_file:
        done = subprocess.run(
            arguments, stdout=out_file, stderr=err_file, timeout=60, check=False, text=True
        )
    done.stdout, done.stderr = out.read_text(), err.read_text()
    return done


def test_what_is_flushed_is_there_after_a_restart(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        for main in range(2, 3002): put(main)
        state.set_applied(77, 3)
        def flushed():
            print("durable", state.applied_durable, len(state.frames(b"", None)))
            state.close()
            reactor.stop()
        state.flush(flushed)
        reactor.run()
        """,
    )
    assert done.stdout.split() == ["durable", "77", "3000"], done.stderr
    state = open_state(tmp_path / "state", pytest.fail, map_size=1 << 26)
    assert (state.applied_durable, state.applied_term, state.revision) == (77, 3, 3001)
    assert state.count(b"", None) == 3000
    state.close()


def test_generations_that_wait_for_the_writer_go_to_it_in_measured_pieces(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        for main in range(2, 802):
            put(main, 100_000)
            state.set_applied(main, 3)
        def flushed():
            print("durable", state.applied_durable, len(state.frames(b"", None)))
            print(pieces.cpu_s[STATE].count)
            state.close()
            reactor.stop()
        state.flush(flushed)
        reactor.run()
        """,
        1 << 28,
    )
    durable, index, count, pieces = done.stdout.split()
    assert (durable, index, count) == ("durable", "801", "800"), done.stderr
    # Four generations of five waited, for at least eight pieces each.
    assert int(pieces) >= 4 * GENERATION_OCTETS_MAX // PIECE_OCTETS // 2
    state = open_state(tmp_path / "state", pytest.fail, map_size=1 << 28)
    assert (state.applied_durable, state.count(b"", None)) == (801, 800)
    state.close()


def test_a_reactor_that_ends_first_is_no_failure(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        put(2)
        state.set_applied(1, 1)
        state.flush(lambda: None)
        reactor.callLater(0, reactor.stop)
        reactor.run()
        state.close()
        print("closed")
        """,
    )
    assert done.stdout == "closed\n", done.stderr
    state = open_state(tmp_path / "state", pytest.fail, map_size=1 << 26)
    assert state.applied_durable == 1
    state.close()


def test_the_map_grows_in_the_writer_and_the_reader_follows(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        def fill(start):
            if start > 4000:
                print(len(state.frames(b"", None)), state.count(b"k000100", b"k000200"))
                state.close()
                return reactor.stop()
            for main in range(start, start + 500): put(main, 2000)
            state.flush(lambda: fill(start + 500))
        fill(2)
        reactor.run()
        """,
        map_size=1 << 20,
    )
    assert done.stdout.split() == ["4000", "100"], done.stderr


def test_an_idle_writer_gives_memory_back_and_goes_on(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        def first():
            reactor.callLater(3.6, second)
        def second():
            for main in range(8002, 8502): put(main)
            state.set_applied(2, 1)
            state.flush(third)
        def third():
            print(state.applied_durable, len(state.frames(b"", None)))
            state.close()
            reactor.stop()
        for main in range(2, 8002): put(main)
        state.set_applied(1, 1)
        state.flush(first)
        reactor.run()
        """,
    )
    assert done.stdout.split() == ["2", "8500"], done.stderr


def test_the_death_of_the_writer_stops_the_member(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        put(2)
        os.kill(made[0].pid, 9)
        state.flush(lambda: print("lied"))
        reactor.run()
        """,
    )
    assert done.returncode == 9
    assert "stopped: the state writer process is gone" in done.stdout
    assert "lied" not in done.stdout


def test_a_writer_that_cannot_be_started_is_said_with_what_to_look_at(
    tmp_path: Path,
) -> None:
    def full(*arguments: object, **named: object) -> subprocess.Popen[bytes]:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(DataDirError, match=r"cannot be started.*open files; check the limits"):
        ProcessStateWriter(cast(IReactorFDSet, None), tmp_path, 1 << 20, -1, popen=full)


def test_the_writer_dies_with_the_member_and_keeps_the_lock_until_then(tmp_path: Path) -> None:
    done = run(tmp_path, "put(2); print(made[0].pid, flush=True); os.kill(os.getpid(), 9)")
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and is_running(pid):
        time.sleep(0.01)
    assert not is_running(pid)
    state = open_state(tmp_path / "state", pytest.fail, map_size=1 << 26)
    assert state.count(b"", None) == 0
    state.close()


def test_a_stopped_writer_keeps_a_successor_out(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "os.kill(made[0].pid, 19); print(made[0].pid, flush=True); os.kill(os.getpid(), 9)",
    )
    pid = int(done.stdout)
    with pytest.raises(DataDirError, match="in use by another process"):
        open_state(tmp_path / "state", pytest.fail, map_size=1 << 26, wait_s=0.2)
    os.kill(pid, signal.SIGCONT)
    open_state(tmp_path / "state", pytest.fail, map_size=1 << 26, wait_s=5.0).close()


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return status != "Z"


@pytest.mark.parametrize("size", [1, 3, 4, 5, 7, 10_000])
def test_messages_survive_any_chunking(size: int) -> None:
    messages = [("changes", [(1, 2, b"k", None)]), ("commit", 5, bytes(70_000)), ("x",)]
    wire = b"".join(encode_message(message) for message in messages)
    reader = MessageReader()
    found = [m for at in range(0, len(wire), size) for m in reader.feed(wire[at : at + size])]
    assert found == messages


def test_the_writer_process_imports_little() -> None:
    program = (
        "import sys, etcdtw.storage.writer.main; "
        "print([m for m in ('twisted', 'google', 'asyncio', 'etcdtw.mvcc') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


def test_defragmenting_gives_free_pages_back_and_loses_nothing(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        import json
        sizes = []
        def deleted():
            sizes.append(state.size_allocated)
            state.defragment(defragmented)
            put(5000)  # what the overlay takes meanwhile
            state.set_applied(2, 1)
        def defragmented(error):
            assert error == "", error
            sizes.append(state.size_allocated)
            print(len(state.frames(b"", None)), state.count(b"", None))
            put(5001)
            state.set_applied(3, 1)
            state.flush(again)
        def again():
            state.defragment(ended)
        def ended(error):
            print(len(state.frames(b"", None)), state.applied_durable, state.size_in_use > 0, error)
            print(sizes[1] < sizes[0] * 0.6)
            state.close()
            reactor.stop()
        for main in range(2, 3002): put(main, 2000)
        def filled():
            for main in range(3002, 4502): state.delete(main, 0, b"k%06d" % (main - 3000))
            state.schedule_compaction(4400)
            mark = (4400).to_bytes(8, "big") + b"_" + bytes(8)
            state.bucket_put(b"meta", b"scheduledCompactRev", mark)
            state.set_applied(1, 1)
            state.flush(lambda: state.on_compacted(4400, deleted))
        state.flush(filled)
        reactor.run()
        """,
    )
    assert done.stdout.split() == ["1501", "1501", "1502", "3", "True", "True"], done.stderr
    directory = tmp_path / "state"
    assert sorted(file.name for file in directory.iterdir()) == [
        "data.mdb", "lock.mdb", "owner.lock",
    ]  # fmt: skip
    assert (directory / "data.mdb").stat().st_mode & 0o777 == 0o600
    state = open_state(directory, pytest.fail, map_size=1 << 26)
    assert (state.count(b"", None), state.revision, state.applied_durable) == (1502, 5001, 3)
    state.close()


def test_callback_that_raises_stops_the_member(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        put(2)
        def broken(): raise ZeroDivisionError("a defect")
        state.flush(broken)
        reactor.callLater(10, os._exit, 3)
        reactor.run()
        """,
    )
    assert done.returncode == 9
    assert done.stdout == (
        "stopped: what waited for the state failed: a defect; report this with the lines above\n"
    )


def test_answer_that_cannot_be_read_stops_the_member(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        from etcdtw.storage.writer.main import SIZE
        made[0]._reader.feed(SIZE.pack(1))  # as if the next octet were a message
        put(2)
        state.flush(lambda: print("lied"))
        reactor.callLater(10, os._exit, 3)
        reactor.run()
        """,
    )
    assert done.returncode == 9
    assert done.stdout.startswith("stopped: what waited for the state failed: ")


def test_reactor_that_drops_the_writer_stops_the_member(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        from twisted.internet.error import ConnectionFdescWentAway
        from twisted.python.failure import Failure
        put(2)
        reactor.callLater(0, made[0].connectionLost, Failure(ConnectionFdescWentAway("dropped")))
        reactor.callLater(10, os._exit, 3)
        reactor.run()
        """,
    )
    assert done.returncode == 9
    assert done.stdout.startswith("stopped: the state writer process is no longer heard: ")
    assert "dropped" in done.stdout
