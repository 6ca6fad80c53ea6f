"""Everything that is too long for CI, as one command: ``make acceptance``.

First what judges only right and wrong, `LANES` at a time; then what measures, one after the other
and with nothing beside it.  Each command's output goes to ``FOLDER/NAME.txt``; a line of
``FOLDER/summary.txt`` says how it ended as soon as it has, so that a run that is cut short tells
what was seen.  What has passed at this very commit is not repeated.

    make acceptance                                  all of it, about four hours on two cores
    make acceptance ARGS="--part shared"             what shares the machine; then "--part alone"
    make acceptance ARGS="--base 2b42417=0.95"       speed, too: no ratio to that commit below 0.95
    make acceptance ARGS="--only differential,kill"  by parts of names
    make acceptance ARGS=--list                      the commands

It wants a clean tree, and runs in a clone of its own with virtual environments of its own: what
it says holds for a newcomer.  A base is built once, in ``FOLDER/base-COMMIT``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
LANES: Final = 3  # of two cores: most of them wait for timers, disks and elections
CHECK_S_MAX: Final = 3 * 3600.0
PYTHON: Final = ".venv/bin/python"
COMPILED: Final = ".venv-bench/bin/python"
CI: Final = "rm -rf ci && git clone --quiet . ci && exec bash ci/.ci/run"
SPEED: Final = ("--rounds", "5", "--seconds", "3")


class Check(NamedTuple):
    """A command of the clone; it passes with status 0."""

    name: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


def _module(name: str, module: str, *arguments: str) -> Check:
    return Check(name, (PYTHON, "-m", module, *arguments))


SHARED: Final = (
    _module("full-disk-57", "tests.integration.full_disk_loop", "--rounds", "50", "--seed", "57"),
    _module("full-disk-31", "tests.integration.full_disk_loop", "--rounds", "50", "--seed", "31"),
    _module("space", "tests.integration.quota_loop", "--quota-mib", "4096", "--rounds", "10"),
    _module("differential", "tests.differential", "--operations", "200000", "--seed", "6200"),
    _module(
        *("differential-users", "tests.differential.users"),
        *("--operations", "100000", "--seed", "20261130"),
    ),
    _module("differential-users-json", "tests.differential.users_json", "--operations", "30000"),
    _module("differential-users-cluster", "tests.differential.users_cluster"),
    _module("prometheus", "tests.integration.prometheus_loop"),
    _module("bitflips", "tests.integration.bitflips", "--flips", "1000", "--seed", "4712"),
    _module(
        *("differential-cluster", "tests.differential.cluster"),
        *("--operations", "100000", "--seed", "23"),
    ),
    _module(
        *("differential-cluster-36", "tests.differential.cluster"),
        *("--programs", "etcd36,etcd,etcdtw", "--operations", "100000", "--seed", "24"),
    ),
    Check(
        "replacement-upgrade-kill",
        (*(PYTHON, "-m", "pytest", "-q", "-n", "0", "-m", "long"),
         *("-k", "replaced_member_by_member or upgrade or histories_stay")),
    ),
    _module("kill-loop", "tests.integration.kill_loop", "--cycles", "200"),
    _module("cluster-kill-loop", "tests.integration.cluster_kill_loop", "--rounds", "200", "--tls"),
    _module("lock-loop", "tests.integration.lock_loop", "--sections", "1000"),
    _module("crashlab", "tests.support.crashlab", "2000"),
)  # fmt: skip
"""They share the machine; the longest come first."""

ALONE: Final = (
    Check("fast", ("make", "fast")),
    Check("bench-users", (COMPILED, "-m", "benchmarks.users", *SPEED)),
    Check("attacks", (COMPILED, "-m", "benchmarks.attacks", "--seconds", "4")),
    Check(
        "disturbance",
        (*(COMPILED, "-m", "benchmarks.disturbance", "--seconds", "3", "--times", "1"),
         *("--programs", "etcdtw")),
    ),
    Check("ci", ("bash", "-c", CI), (("CI", "true"),)),
)  # fmt: skip
"""They measure: nothing may run beside them."""


def speed_checks(folder: Path, bases: list[str]) -> list[Check]:
    """Return what compares with ``bases``, each ``COMMIT=FLOOR``; the first beside real etcd."""
    found: list[Check] = []
    for i, base in enumerate(bases):
        commit, floor = base.split("=")
        twistd = base_clone(folder, base) / ".venv-bench" / "bin" / "twistd"
        rest = (*SPEED, "--floor", floor, *(["--base-only"] if i else []))
        for name, module in (("bench", "side_by_side"), ("bench-cluster", "cluster")):
            command = (COMPILED, "-m", f"benchmarks.{module}", *rest)
            found.append(Check(f"{name}-{commit}", command, (("ETCDTW_BASE", str(twistd)),)))
    return found


def _run(*command: str, cwd: Path) -> str:
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout


def prepare(clone: Path, commit: str, built: str) -> None:
    """Make ``clone`` one of ``commit``, in which ``make`` has built the stamps ``built``."""
    if not clone.exists():
        _run("git", "clone", "--quiet", str(ROOT), str(clone), cwd=clone.parent)
        _run("git", "checkout", "--quiet", commit, cwd=clone)
    for stamp in built.split():
        print(f"preparing {clone.name}: {stamp}", flush=True)
        _run("make", stamp, cwd=clone)


def base_clone(folder: Path, base: str) -> Path:
    """Return where the base ``COMMIT=FLOOR`` is built."""
    return folder / f"base-{base.split('=')[0]}"


def _head() -> str:
    return _run("git", "rev-parse", "--short=8", "HEAD", cwd=ROOT).strip()


class Acceptance:
    """One run: where its output goes, and what has passed."""

    def __init__(self, folder: Path, commit: str, clone: Path) -> None:
        self._folder = folder
        self._commit = commit
        self._clone = clone
        self._summary = folder / "summary.txt"
        self._lock = Lock()
        self.failed: list[str] = []

    def has_passed(self, check: Check) -> bool:
        """Whether an earlier run saw it pass at this commit."""
        wanted = f"{self._commit} {check.name} passed"
        return self._summary.exists() and any(
            line.startswith(wanted) for line in self._summary.read_text().splitlines()
        )

    def run(self, check: Check) -> None:
        """Run it and add its line to the summary."""
        if self.has_passed(check):
            self._tell(f"{check.name}: has passed at {self._commit} before")
            return
        self._tell(f"{check.name}: begins")
        output = self._folder / f"{check.name}.txt"
        began = time.perf_counter()
        with output.open("w") as file:
            print(f"$ {' '.join(check.command)}    (at {self._commit})", file=file, flush=True)
            try:
                status = subprocess.run(
                    check.command, cwd=self._clone, stdout=file, stderr=subprocess.STDOUT,
                    env=os.environ | dict(check.environment), timeout=CHECK_S_MAX, check=False,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                status = -1
        word = "failed" if status else "passed"
        if status:
            self.failed.append(check.name)
        last = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
        took_s = time.perf_counter() - began
        line = f"{check.name} {word} (status {status}, {took_s:.0f} s): {last[-1]}"
        with self._lock, self._summary.open("a") as file:
            print(f"{self._commit} {line[:300]}", file=file)
        self._tell(line)

    def _tell(self, text: str) -> None:
        with self._lock:
            print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> int:
    """Run what the command line asks for; 1: something failed."""
    parser = argparse.ArgumentParser(
        prog="make acceptance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", action="append", default=[], metavar="COMMIT=FLOOR")
    parser.add_argument("--only", default="", help="parts of names, separated by commas")
    parser.add_argument(
        "--part", choices=("shared", "alone"), help="what shares the machine, or what measures"
    )
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache/etcdtw/acceptance")
    parser.add_argument("--list", action="store_true", help="name the commands and run none")
    options = parser.parse_args()
    parts = [part for part in options.only.split(",") if part]

    def chosen(checks: list[Check]) -> list[Check]:
        return [one for one in checks if not parts or any(part in one.name for part in parts)]

    shared = [] if options.part == "alone" else chosen(list(SHARED))
    alone = (
        []
        if options.part == "shared"
        else chosen([*speed_checks(options.folder, options.base), *ALONE])
    )
    if options.list:
        print("\n".join(f"{one.name:26} {' '.join(one.command)}" for one in (*shared, *alone)))
        return 0
    if _run("git", "status", "--porcelain", cwd=ROOT):
        print("the tree is not clean: commit first, so that what is seen holds for a commit")
        return 2
    options.folder.mkdir(parents=True, exist_ok=True)
    commit = _head()
    clone = options.folder / commit
    prepare(clone, commit, ".venv/.installed-test .venv-bench/.installed")
    if alone:
        for base in options.base:
            clone_of_base = base_clone(options.folder, base)
            prepare(clone_of_base, base.split("=")[0], ".venv-bench/.installed")
    acceptance = Acceptance(options.folder, commit, clone)
    with ThreadPoolExecutor(LANES) as lanes:
        list(lanes.map(acceptance.run, shared))
    for check in alone:
        acceptance.run(check)
    print(f"failed: {', '.join(acceptance.failed) or 'nothing'}; see {options.folder}")
    return 1 if acceptance.failed else 0


if __name__ == "__main__":
    sys.exit(main())
