"""Ports of tests: parts of workers do not overlap, and a port is given once a round."""

from __future__ import annotations

import os
import socket
from struct import Struct

import pytest

from tests.support.ports import PORTS_VARIABLE, free_port, part_of_ports


def test_parts_of_workers_do_not_overlap_and_stay_within() -> None:
    assert [part_of_ports("100-109", i, 3) for i in range(3)] == ["100-102", "103-105", "106-108"]
    assert part_of_ports("100-109", 0, 1) == "100-109"
    assert part_of_ports("100-101", 1, 2) == "101-101"


def test_too_few_ports_are_refused() -> None:
    with pytest.raises(ValueError, match="too few ports for 3 workers"):
        part_of_ports("100-101", 0, 3)


def test_a_port_is_given_once_a_round_and_never_while_it_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = free_port()
    monkeypatch.setenv(PORTS_VARIABLE, f"{first}-{first + 7}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        port = taken.getsockname()[1]
        given = [free_port() for _ in range(7)]
    assert port not in given
    assert len(set(given)) >= 6  # a neighbour may use one of them


@pytest.mark.processes
def test_a_fork_is_given_other_ports_than_its_parent() -> None:
    number = Struct("4i")
    free_port()
    out, into = os.pipe()
    if not (child := os.fork()):
        os.write(into, number.pack(*[free_port() for _ in range(4)]))
        os._exit(0)
    given = {free_port() for _ in range(4)}
    os.waitpid(child, 0)
    assert not given & set(number.unpack(os.read(out, number.size)))
    os.close(out)
    os.close(into)
