"""Small filesystems of a test's own, in memory, so that a disk can be full."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """Mount a tmpfs of ``size`` (as mount takes it, ``2m``); skips loudly where none can be had."""
    if os.geteuid() != 0:
        pytest.skip("NOT ROOT: FULL DISKS ARE NOT TESTED")
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", folder]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("NO MOUNT: FULL DISKS ARE NOT TESTED")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
