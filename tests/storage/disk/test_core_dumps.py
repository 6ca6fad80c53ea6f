"""Cores: what forbids them, here and in children."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from etcdtw.storage.disk.core_dumps import NONE, PR_SET_DUMPABLE, follow_parent, forbid_core_dumps

CHILD = """
import ctypes, resource, sys
from etcdtw.storage.disk.core_dumps import forbid_core_dumps, follow_parent
{how}
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
"""3: PR_GET_DUMPABLE."""


class Kernel:
    def __init__(self, answer: int = 0) -> None:
        self.answer = answer
        self.limits: list[tuple[int, tuple[int, int]]] = []
        self.options: list[tuple[int, int]] = []

    def set_limit(self, which: int, limit: tuple[int, int]) -> None:
        self.limits.append((which, limit))

    def set_option(self, option: int, value: int) -> int:
        self.options.append((option, value))
        return self.answer


def test_neither_a_file_nor_a_program_gets_a_core() -> None:
    kernel = Kernel()
    assert forbid_core_dumps(kernel.set_limit, kernel.set_option)
    assert kernel.limits == [(resource.RLIMIT_CORE, (0, 0))]
    assert kernel.options == [(PR_SET_DUMPABLE, 0)]


def test_who_asks_learns_that_the_kernel_refuses() -> None:
    kernel = Kernel(answer=-1)
    assert not forbid_core_dumps(kernel.set_limit, kernel.set_option)


def test_a_child_follows_its_parent() -> None:
    for limit, options in ((NONE, [(PR_SET_DUMPABLE, 0)]), ((0, 1), []), ((-1, -1), [])):
        kernel = Kernel()
        follow_parent(limit, kernel.set_option)
        assert kernel.options == options


@pytest.mark.processes
def test_the_kernel_does_as_it_is_told() -> None:
    for how in ("forbid_core_dumps()", "resource.setrlimit(4, (0, 0)); follow_parent()"):
        command = [sys.executable, "-c", CHILD.format(how=how)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        assert done.stdout == "(0, 0) 0\n"
