"""What ``/debug/vars`` tells of this process, under the names that etcd gives."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from pathlib import Path

STATM = Path("/proc/self/statm")
RESIDENT_FIELD = 1


def process_variables(raft_status: Mapping[str, object]) -> dict[str, object]:
    """Return the variables by name; of ``memstats`` only what this program has: ``Sys``."""
    return {
        "cmdline": sys.argv,
        "file_descriptor_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "memstats": {"Sys": resident_octets()},
        "raft.status": dict(raft_status),
    }


def resident_octets() -> int:
    """Return the memory of this process that is in RAM."""
    return int(STATM.read_text().split()[RESIDENT_FIELD]) * resource.getpagesize()
