"""Members started with any flags at all, as an operator would by hand: their lines and their end.

`tests.support.processes` starts members that are meant to serve; here a start may fail, fork, or
wait for others for ever.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

TWISTD: Final = Path(sys.executable).with_name("twistd")
LINE_WITHIN_S: Final = 30.0
END_WITHIN_S: Final = 30.0
POLL_S: Final = 0.02


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without etcd's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
    return {**kept, **more}


def member_flags(
    name: str, folder: Path, client: int, peer: int, cluster: str | None = None
) -> list[str]:
    """Return the flags of a member on two ports of 127.0.0.1."""
    client_url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    return [
        f"--name={name}",
        f"--data-dir={folder}",
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster={cluster or f'{name}={peer_url}'}",
    ]


class Launch:
    """One started process; its stderr goes to a file that is read as it grows."""

    def __init__(self, command: Sequence[str], folder: Path, log: Path, **environment: str) -> None:
        self.log = log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                list(command),
                cwd=folder,
                env=clean_environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def records(self) -> list[dict[str, Any]]:
        """Return the lines so far that are JSON."""
        lines = self.text.splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def await_text(self, wanted: str, within_s: float = LINE_WITHIN_S) -> None:
        """Return when ``wanted`` stands in the log; raises AssertionError when it never does."""
        deadline = time.monotonic() + within_s
        while wanted not in self.text:
            if self.process.poll() is not None or time.monotonic() > deadline:
                assert wanted in self.text, f"status {self.process.poll()}: {self.text[-3000:]}"
            time.sleep(POLL_S)

    def ended(self, within_s: float = END_WITHIN_S) -> int:
        """Wait for the end; return the status."""
        return self.process.wait(within_s)

    def stop(self) -> int:
        """Ask it to end, and wait."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()


@contextmanager
def launched(
    flags: Sequence[str], folder: Path, log: str = "member.log", **environment: str
) -> Iterator[Launch]:
    """Start a member in the foreground; whatever still runs at the end is killed."""
    command = [str(TWISTD), "-n", "--pidfile=", "etcdtw", *flags]
    launch = Launch(command, folder, folder / log, **environment)
    try:
        yield launch
    finally:
        if launch.process.poll() is None:
            launch.process.kill()
            launch.process.wait()
