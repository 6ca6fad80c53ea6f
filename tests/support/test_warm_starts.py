"""A member that is forked from a warm process is one as twistd starts it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.launches import TWISTD, member_flags
from tests.support.ports import free_port
from tests.support.processes import READY_LINE, process_tree
from tests.support.warm_starts import WarmProcess, WarmStarts

pytestmark = pytest.mark.processes

TIMEOUT_S = 30.0
START = [str(TWISTD), "-n", "--pidfile=", "etcdtw"]


class Starts(WarmStarts):
    """Knows what it has started."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[WarmProcess] = []

    def start(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> WarmProcess:
        self.started.append(super().start(arguments, folder, environment))
        return self.started[-1]


@pytest.fixture
def starts() -> Iterator[WarmStarts]:
    begun = Starts()
    yield begun
    for process in begun.started:
        process.send_signal(signal.SIGKILL)
        process.wait(TIMEOUT_S)
        process.stderr.close()
    begun.close()


def ready_member(starts: WarmStarts, folder: Path, name: str = "m1") -> WarmProcess:
    flags = member_flags(name, folder / name, free_port(), free_port())
    process = starts.start([*START, *flags], folder, os.environ)
    for line in process.stderr:
        if READY_LINE in line:
            return process
    raise AssertionError(f"it ended with status {process.wait(TIMEOUT_S)}")


def test_a_start_that_fails_says_and_returns_what_it_does_by_twistd(
    starts: WarmStarts, tmp_path: Path
) -> None:
    command = [*START, "--nonsense"]
    warm = starts.start(command, tmp_path, os.environ)
    cold = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert warm.stderr.read() == cold.stderr != b""
    assert warm.wait(TIMEOUT_S) == cold.returncode == 2


def test_members_end_by_the_signal_that_they_are_sent(starts: WarmStarts, tmp_path: Path) -> None:
    first, second = (ready_member(starts, tmp_path, name) for name in ("m1", "m2"))
    assert first.pid != second.pid
    assert first.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        first.wait(0.01)
    first.send_signal(signal.SIGTERM)
    assert first.wait(TIMEOUT_S) == first.poll() == -signal.SIGTERM  # as by twistd
    for pid in process_tree(second.pid):
        os.kill(pid, signal.SIGKILL)
    assert second.wait(TIMEOUT_S) == -signal.SIGKILL
    second.send_signal(signal.SIGTERM)  # to nobody


def test_each_has_its_own_folder_environment_and_descriptors(
    starts: WarmStarts, tmp_path: Path
) -> None:
    name = "ETCDTW_WARM_STARTS_TEST"
    flags = member_flags("m1", Path("data"), free_port(), free_port())
    process = starts.start([*START, *flags], tmp_path, {**os.environ, "ETCD_ENABLE_PPROF": name})
    assert name.encode() in process.stderr.read()  # the environment was read, and is wrong
    assert process.wait(TIMEOUT_S) == 1
    member = ready_member(starts, tmp_path)
    assert os.readlink(f"/proc/{member.pid}/cwd") == str(tmp_path)
    assert os.readlink(f"/proc/{member.pid}/fd/0") == "/dev/null"
    member.send_signal(signal.SIGTERM)
    assert member.wait(TIMEOUT_S) == -signal.SIGTERM
