"""What the Raft core costs one voter: proposals in, durable, committed, handed out.

    python benchmarks/micro_raft.py

Prints microseconds per turn and per entry; the disk costs nothing here.
"""

from __future__ import annotations

from random import Random
from time import perf_counter
from typing import Final

from etcdtw.raft.config import Config
from etcdtw.raft.entry import ConfState, Entry, HardState, Snapshot
from etcdtw.raft.message import STORAGE_APPEND
from etcdtw.raft.raw_node import RawNode

BATCH_SIZES: Final = (1, 10, 50, 500)
ENTRIES_PER_RUN: Final = 50_000
RUNS: Final = 5  # the best one counts: the others were disturbed


class NoDisk:
    """Storage that keeps only marks: the core must not ask it for anything it just wrote."""

    def __init__(self) -> None:
        self.last = 2

    def initial_state(self) -> tuple[HardState, ConfState]:
        return HardState(1, 1, 2), ConfState(voters=(1,))

    def entries(self, low: int, high: int, size_max: int) -> list[Entry]:
        raise AssertionError(f"the disk was read: {low}..{high}")

    def term(self, index: int) -> int:
        return 1

    def first_index(self) -> int:
        return 3

    def last_index(self) -> int:
        return self.last

    def snapshot(self) -> Snapshot:
        return Snapshot()


def turn(node: RawNode) -> int:
    """Carry out Readys until there is none, as the node does; return entries handed out."""
    count = 0
    while node.has_ready():
        for m in node.ready().messages:
            if m.to != STORAGE_APPEND:
                count += len(m.entries)
            for response in m.responses:
                node.step(response)
    return count


def new_leader(committed_size_max: int) -> RawNode:
    """Return a lone voter that leads and has nothing left to do."""
    node = RawNode(
        Config(
            id=1,
            election_ticks=10,
            heartbeat_ticks=1,
            storage=NoDisk(),
            random=Random(1),
            applied=2,
            max_committed_size_per_ready=committed_size_max,
            max_uncommitted_size=committed_size_max,
        )
    )
    node.campaign()
    turn(node)
    assert node.is_leader
    return node


def measure(batch_size: int, committed_size_max: int) -> float:
    """Return seconds per turn with ``batch_size`` proposals in it."""
    payloads = [b"x" * 64] * batch_size
    turns = ENTRIES_PER_RUN // max(batch_size, 10)
    best = float("inf")
    for _ in range(RUNS):
        node = new_leader(committed_size_max)
        begin = perf_counter()
        for _ in range(turns):
            node.propose_batch(payloads)
            turn(node)
        best = min(best, (perf_counter() - begin) / turns)
        assert node.applied_index == 3 + turns * batch_size
    return best


def main() -> None:
    """Measure every batch size, with and without size limits, and print."""
    for name, size_max in (("no limits", 2**64 - 1), ("size limits", 64 * 1024 * 1024)):
        for batch_size in BATCH_SIZES:
            seconds = measure(batch_size, size_max)
            print(
                f"{name:12} batch {batch_size:4}: {seconds * 1e6:8.1f} us a turn, "
                f"{seconds * 1e6 / batch_size:6.2f} us an entry"
            )


if __name__ == "__main__":
    main()
