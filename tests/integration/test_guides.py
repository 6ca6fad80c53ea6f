"""The guides' commands, pasted: each guide's blocks in one shell, with real etcd and etcdctl."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.support.judges import judge_program
from tests.support.launches import TWISTD, clean_environment

ROOT: Final = Path(__file__).parent.parent.parent
GUIDES: Final = ROOT / "docs" / "guide"
FENCE: Final = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN, MACHINE, FILLED_IN = "bash", "sh", "text"
"""Run here; changes the machine, so that only its syntax is looked at; has gaps to be filled."""
LOOPBACK_UP: Final = """\
import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 0x41))"""
"""SIOCSIFFLAGS, up and running: a new network namespace begins with its loopback down."""
APART: Final = ("unshare", "--map-root-user", "--net")
TRAP: Final = """trap 'echo "FAILED: $BASH_COMMAND"' ERR"""
WITHIN_S: Final = 240.0


def blocks(guide: Path) -> list[tuple[str, str]]:
    """Return the kind and the text of each fenced block."""
    return FENCE.findall(guide.read_text())


def is_apart() -> bool:
    """Whether this machine lets us have a network of our own, where every port is free."""
    try:
        return subprocess.run([*APART, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def kill_all_in(folder: Path) -> None:
    """Kill every process that works in ``folder``: daemons have sessions of their own."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (path / "cwd").resolve(strict=True).is_relative_to(folder):
                os.kill(int(path.name), signal.SIGKILL)


@pytest.mark.processes
@pytest.mark.parametrize("guide", sorted(GUIDES.glob("*.md")), ids=lambda path: path.name)
def test_every_block_says_what_it_is_and_is_a_shells(guide: Path) -> None:
    for kind, text in blocks(guide):
        assert kind in (RUN, MACHINE, FILLED_IN), f"say what this block is, ```text?:\n{text}"
        if kind != FILLED_IN:
            checked = subprocess.run(
                ["bash", "-n"], input=text, text=True, capture_output=True, check=False
            )
            assert (checked.returncode, checked.stderr) == (0, ""), text


@pytest.mark.integration
@pytest.mark.skipif(not is_apart(), reason="no network namespaces here (unshare --net)")
@pytest.mark.parametrize(
    "name",
    ["client.md", "cluster.md", "gateway.md", "monitoring.md", "operate.md", "security.md"],
)
def test_blocks_of_a_guide_run_as_they_stand(tmp_path: Path, name: str) -> None:
    found = [text for kind, text in blocks(GUIDES / name) if kind == RUN]
    assert found
    up = f"{shlex.quote(sys.executable)} -c {shlex.quote(LOOPBACK_UP)}"
    script = "\n".join([up, "set -e", TRAP, *found, "echo DONE"])
    programs = tmp_path / "programs"
    programs.mkdir()
    for program in ("etcd", "etcdctl"):
        (programs / program).symlink_to(judge_program(program))
    (programs / "twistd").symlink_to(TWISTD)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    folder = tmp_path / "run"
    folder.mkdir()
    with (tmp_path / "script").open("w+") as pasted, (tmp_path / "said").open("w") as said:
        pasted.write(script)
        pasted.seek(0)
        shell = subprocess.Popen(
            [*APART, "bash"],
            stdin=pasted,
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=clean_environment(PATH=path),
            start_new_session=True,
        )
        try:
            status = shell.wait(WITHIN_S)
        finally:
            kill_all_in(folder)
    text = (tmp_path / "said").read_text()
    assert (status, text.rstrip().endswith("DONE")) == (0, True), text[-4000:]
