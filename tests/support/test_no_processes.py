"""What the mark ``processes`` is for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.no_processes import no_processes


@pytest.mark.processes
def test_a_process_starts_outside_and_not_within() -> None:
    with no_processes():
        with pytest.raises(AssertionError, match="Popen: mark"):
            subprocess.run([sys.executable, "--version"], check=True)
        with pytest.raises(AssertionError, match="fork: mark"):
            os.fork()
    subprocess.run([sys.executable, "--version"], check=True, stdout=subprocess.DEVNULL)


def test_a_test_without_a_mark_starts_none() -> None:
    with pytest.raises(AssertionError, match="mark what starts processes"):
        subprocess.run(["true"], check=True)
