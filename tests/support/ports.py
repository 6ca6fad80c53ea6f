"""Ports for members and servers of tests, in turn, so that two that start at once get two.

Several runs share a machine, and several workers a run: each has a part of its own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from typing import Final

PORTS_VARIABLE: Final = "ETCDTW_TEST_PORTS"
"""``first-last``: restricts the choice, for machines that several runs share."""
# Below the ports that outgoing connections are given: a member finds its port free after a kill.
PORTS: Final = "10000-31999"


def part_of_ports(ports: str, number: int, count: int) -> str:
    """Return the ``number``th of ``count`` equal parts of ``first-last``."""
    first, last = (int(port) for port in ports.split("-"))
    size = (last - first + 1) // count
    if size < 1:
        raise ValueError(f"{ports} are too few ports for {count} workers")
    return f"{first + number * size}-{first + (number + 1) * size - 1}"


@cache
def _turns(ports: str, pid: int) -> Iterator[int]:
    """Return the ports of ``first-last`` for ever, from a place of each process, forks too."""
    first, last = (int(port) for port in ports.split("-"))
    size = last - first + 1
    start = pid * 31 % size
    return cycle([first + (start + i) % size for i in range(size)])


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on now; another one at each call."""
    ports = os.environ.get(PORTS_VARIABLE) or PORTS
    first, last = (int(port) for port in ports.split("-"))
    for _ in range(last - first + 1):
        port = next(_turns(ports, os.getpid()))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port in {ports}")
