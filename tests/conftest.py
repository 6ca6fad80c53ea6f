"""What all tests share: who judges, who works, and that hypothesis never judges how busy we are."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator
from contextlib import nullcontext

import pytest
from hypothesis import settings

from tests.conformance.raft_scripts import SCRIPT_COUNTS
from tests.support import workers
from tests.support.judges import etcd34_program, judge_program, told_version
from tests.support.no_processes import no_processes
from tests.support.ports import PORTS, PORTS_VARIABLE, part_of_ports
from tests.support.warm_starts import begin_suite, end_suite

# Or every start of a member compiles all of it again, and every worker all of our asserts.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

settings.register_profile("etcdtw", deadline=None)
settings.load_profile("etcdtw")


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker a part of the ports, which the programs that it starts inherit."""
    begin_suite()
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        ports = os.environ.get(PORTS_VARIABLE) or PORTS
        number = int(worker["workerid"].removeprefix("gw"))
        os.environ[PORTS_VARIABLE] = part_of_ports(ports, number, worker["workercount"])


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what members were forked from."""
    end_suite()
    workers.forget_collected(config)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many workers ``-n auto`` means."""
    return workers.worker_count(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what stays together, and what begins first."""
    workers.arrange(items)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Compile the tests of a fresh clone once, not in every worker."""
    workers.await_first(session.config)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave what was collected, which stays, out of every later look at garbage."""
    workers.tell_collected(session.config)
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let nobody start a process who has not said so: `make fast` goes by that."""
    may_start = any(item.get_closest_marker(name) for name in ("integration", "processes", "long"))
    with nullcontext() if may_start else no_processes():
        return (yield)


def pytest_report_header(config: pytest.Config) -> str:
    """Say which real etcd judges this run."""
    judge = judge_program("etcd")
    also = "also 3.4" if etcd34_program() else "without 3.4"
    return f"judge: real etcd {told_version(judge)} at {judge} ({also})"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count what must not be left out in silence: Raft's scripts, and what was skipped."""
    passed = [report.nodeid for report in terminalreporter.getreports("passed")]
    scripts = sum("test_raft_scripts.py" in node and "_script[" in node for node in passed)
    if scripts:
        wanted = sum(SCRIPT_COUNTS.values())
        terminalreporter.write_line(f"RAFT SCRIPTS THAT PASSED: {scripts} of {wanted}")
    skipped = len(terminalreporter.getreports("skipped"))
    if skipped:
        terminalreporter.write_line(f"SKIPPED: {skipped}, each for a reason above")
