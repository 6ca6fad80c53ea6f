"""One running member, real etcd or etcdtw, behind one face.

Both are started as processes with the same flags, told apart only by the program.  Knows
nothing of requests: `tests.support.etcd_client` and `tests.support.wire_client` speak to it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.judges import judge_program, older_program
from tests.support.ports import free_port
from tests.support.warm_starts import WarmProcess, warm_starts

READY_LINE: Final = b"ready to serve client requests"
READY_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
STDERR_OCTETS_KEPT: Final = 4 * 1024 * 1024  # of each run; the rest stays in the file
PROGRAMS: Final = ("etcd", "etcdtw")
OLDER_LINES: Final = {"etcd34": "3.4", "etcd35": "3.5", "etcd36": "3.6"}
"""Older real etcds, which only members of clusters may be."""
BASE: Final = "base"
"""An earlier etcdtw, whose twistd the environment names (`BASE_VARIABLE`)."""
BASE_VARIABLE: Final = "ETCDTW_BASE"


class MemberNotReadyError(Exception):
    """The process ended, or did not announce readiness in time; holds the end of its stderr."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of what a member with TLS serves with, and what its clients trust."""

    cert_file: Path
    key_file: Path
    ca_file: Path
    client_cert_auth: bool = False


def etcdtw_command() -> list[str]:
    """Return the command that starts our member, without its flags."""
    twistd = Path(sys.executable).with_name("twistd")
    return [str(twistd), "-n", "--pidfile=", "etcdtw"]


def start_command(program: str) -> list[str]:
    """Return the command that starts ``program``, without its flags."""
    if program == "etcd":
        return [str(judge_program("etcd"))]
    if program in OLDER_LINES:
        path = older_program(OLDER_LINES[program])
        if path is None:
            raise FileNotFoundError(f"no etcd {OLDER_LINES[program]}: `make judges`")
        return [str(path)]
    if program == BASE:
        return [os.environ[BASE_VARIABLE], "-n", "--pidfile=", "etcdtw"]
    return etcdtw_command()


def process_tree(pid: int) -> list[int]:
    """Return ``pid`` and all its living descendants, parents first."""
    tree = [pid]
    for parent in tree:
        for listing in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                tree.extend(int(child) for child in listing.read_text().split())
            except OSError:
                continue
    return tree


def memory_kib(pids: Sequence[int], field: str = "RssAnon") -> int:
    """Return the sum of one field of ``/proc/PID/status`` over ``pids``, in KiB."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    return total


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the processor time that ``pids`` have used so far, user and system."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


class RunningMember:
    """One member of a cluster of one; a context manager that stops and removes what it made.

    ``program`` is ``etcd``, ``etcdtw`` or ``etcd34``.  The data directory outlives `stop` and
    `kill`, so that `start` is a restart; `close` deletes it when it was temporary.
    """

    def __init__(
        self,
        program: str,
        *,
        flags: Sequence[str] = (),
        tls: TlsFiles | None = None,
        data_dir: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        assert program in (*PROGRAMS, *OLDER_LINES, BASE), program
        self.program = program
        self.flags = list(flags)
        self.tls = tls
        self._temporary: Path | None = None
        if data_dir is None:
            self._temporary = Path(tempfile.mkdtemp(prefix=f"{program}-member-"))
            data_dir = self._temporary / "data"
        self.data_dir = data_dir
        self.client_port = free_port()
        self.peer_port = free_port()
        self.environment = environment or {}
        self._process: subprocess.Popen[bytes] | WarmProcess | None = None
        self._stderr_path = data_dir.parent / f"{data_dir.name}.stderr"
        self._ready = threading.Event()

    # -- where it is ---------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """``host:port`` of the client listener."""
        return f"127.0.0.1:{self.client_port}"

    @property
    def client_url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.endpoint}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the member is not running"
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """Its processes, children included."""
        return process_tree(self.pid)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def command(self) -> list[str]:
        """Return the whole command line."""
        peer_url = f"http://127.0.0.1:{self.peer_port}"
        flags = [
            *("--name", "m1", "--data-dir", str(self.data_dir)),
            *("--listen-client-urls", self.client_url),
            *("--advertise-client-urls", self.client_url),
            *("--listen-peer-urls", peer_url),
            *("--initial-advertise-peer-urls", peer_url),
            *("--initial-cluster", f"m1={peer_url}"),
        ]
        if self.tls is not None:
            flags += ["--cert-file", str(self.tls.cert_file), "--key-file", str(self.tls.key_file)]
            if self.tls.client_cert_auth:
                flags += ["--trusted-ca-file", str(self.tls.ca_file), "--client-cert-auth"]
        return [*start_command(self.program), *flags, *self.flags]

    # -- its life ------------------------------------------------------------------------------

    def start(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Start it (again) and wait until it says that it serves."""
        self.launch()
        self.wait_ready(timeout_s)

    def launch(self) -> None:
        """Start the process without waiting for anything."""
        assert not self.is_running, "the member is running already"
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        self._ready = threading.Event()
        process = self._begun()
        self._process = process
        threading.Thread(target=self._drain, args=(process, self._ready), daemon=True).start()

    def _begun(self) -> subprocess.Popen[bytes] | WarmProcess:
        command, folder = self.command(), self.data_dir.parent
        warm = warm_starts()
        start = etcdtw_command()
        # What comes before twistd, or before all other libraries, is of a start by itself.
        if warm is not None and command[: len(start)] == start and not self.environment:
            return warm.start(command, folder, os.environ)
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={**os.environ, **self.environment},
        )

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return at the readiness line; raises `MemberNotReadyError` if it never comes."""
        deadline = time.monotonic() + timeout_s
        while not self._ready.wait(0.005):
            if not self.is_running or time.monotonic() > deadline:
                status = self.exit_status
                raise MemberNotReadyError(
                    f"{self.program} is not ready (exit status {status}):\n{self.stderr()[-4000:]}"
                )

    def _drain(
        self, process: subprocess.Popen[bytes] | WarmProcess, ready: threading.Event
    ) -> None:
        assert process.stderr is not None
        with self._stderr_path.open("ab") as kept, process.stderr:
            for line in process.stderr:
                kept.write(line)
                kept.flush()
                if READY_LINE in line:
                    ready.set()

    def stderr(self) -> str:
        """Return the end of what all its runs have written to stderr."""
        if not self._stderr_path.exists():
            return ""
        return self._stderr_path.read_bytes()[-STDERR_OCTETS_KEPT:].decode(errors="replace")

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Ask it to end (SIGTERM) and return its exit status."""
        process = self._process
        assert process is not None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return process.wait(0)

    def kill(self) -> None:
        """Kill -9 of all its processes at one moment, and wait until they are gone."""
        process = self._process
        if process is None:
            return
        tree = process_tree(process.pid)
        self._signal(tree, signal.SIGSTOP)  # so that no child sees its parent die first
        self._signal(process_tree(process.pid), signal.SIGKILL)
        process.wait(STOP_TIMEOUT_S)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while any(_is_alive(pid) for pid in tree[1:]) and time.monotonic() < deadline:
            time.sleep(0.002)

    def restart(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        self.stop()
        self.start(timeout_s)

    def pause(self) -> None:
        """Stop its clocks (SIGSTOP), so that it costs a measurement of another nothing."""
        self._signal(self.pids, signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(self.pids, signal.SIGCONT)

    def close(self) -> None:
        """Kill what still runs and delete the temporary directory."""
        if self.is_running:
            self.kill()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> RunningMember:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @staticmethod
    def _signal(pids: Sequence[int], number: int) -> None:
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
