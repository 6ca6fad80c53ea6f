"""Kill -9 under load, over and over: ``python -m tests.integration.kill_loop --cycles 200``.

Clients put unique values, some in txns, and note every acknowledgement (key, value, revision)
outside the member.  After each restart every noted write must be readable at its exact revision,
and the store's revision must not be below any revision that was acknowledged or read.

Real etcd 3.5.1 does lose writes here (five runs of five, within 4 to 17 cycles, on a busy
machine): entries that it acknowledged before they reached its WAL (etcd #14370), and entries of
the WAL that it skips at the restart, so that later revisions are one less (#13766).
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from etcdtw.wire import etcdserverpb as pb
from tests.differential.operations import PUT, RANGE, TXN
from tests.support.processes import PROGRAMS, RunningMember
from tests.support.wire_client import ConnectionFailedError, WireClient

CLIENTS: Final = 8
BURST: Final = 8  # calls in flight of each client
KEYS: Final = 200  # of each client; every write has a value of its own
LOAD_S: Final = (0.15, 0.6)  # how long a cycle runs before the kill
CHECK_BURST: Final = 200
COMPACTION_EVERY: Final = 7  # cycles; keeps the history short and compaction in the game
RESTART_TIMEOUT_S: Final = 60.0
ENDING: Final = ("etcdserver: server stopped", "raft: stopped")
"""What a member that ends in order may answer: such a write was not promised."""


@dataclass(slots=True)
class Acknowledged:
    """One write whose answer reached its client."""

    key: bytes
    value: bytes
    revision: int


@dataclass(slots=True)
class Tally:
    """What the loop has seen."""

    cycles: int = 0
    acknowledged: int = 0
    checked: int = 0
    compactions: int = 0
    errors: int = 0  # calls that were answered with an error
    problems: list[str] = field(default_factory=list)
    restart_s: list[float] = field(default_factory=list)


class Writer(threading.Thread):
    """One client: bursts of writes until the connection breaks."""

    def __init__(self, endpoint: str, number: int, cycle: int) -> None:
        super().__init__(daemon=True)
        self._endpoint = endpoint
        self._number = number
        self._cycle = cycle
        self._random = random.Random(cycle * CLIENTS + number)
        self.acknowledged: list[Acknowledged] = []
        self.errors: list[str] = []

    def run(self) -> None:
        try:
            client = WireClient(self._endpoint)
        except OSError:
            return
        sequence = 0
        try:
            while True:
                writes = [self._write(sequence + i) for i in range(BURST)]
                sequence += BURST
                self._make(client, writes)
        except (ConnectionFailedError, OSError):
            return  # the kill
        finally:
            client.close()

    def _write(self, sequence: int) -> tuple[str, Any, list[tuple[bytes, bytes]]]:
        """Return the path, the request and the pairs that it stores."""
        values = [f"{self._cycle}.{self._number}.{sequence}.{i}".encode() for i in range(3)]
        first = self._random.randrange(KEYS)
        names = [b"kill/%d/%d" % (self._number, (first + i) % KEYS) for i in range(3)]
        if self._random.randrange(4):
            request = pb.PutRequest(key=names[0], value=values[0])
            return PUT, request, [(names[0], values[0])]
        pairs = list(zip(names, values, strict=True))
        puts = [
            pb.RequestOp(request_put=pb.PutRequest(key=key, value=value)) for key, value in pairs
        ]
        return TXN, pb.TxnRequest(success=puts), pairs

    def _make(self, client: WireClient, writes: list[tuple[str, Any, Any]]) -> None:
        streams = client.begin([(path, request.SerializeToString()) for path, request, _ in writes])
        try:
            client.finish(streams)
        finally:
            # The kill may fall into the middle: what was answered before it counts all the same.
            for stream, (path, _, pairs) in zip(streams, writes, strict=True):
                if stream.code == 0:
                    parse = pb.PutResponse if path == PUT else pb.TxnResponse
                    revision = parse.FromString(stream.messages[0]).header.revision
                    self.acknowledged += [
                        Acknowledged(key, value, revision) for key, value in pairs
                    ]
                elif stream.code is not None and stream.text not in ENDING:
                    self.errors.append(f"{stream.code} {stream.text}")


class KillLoop:
    """The loop over one member, which it starts; ``end`` ends it under load, once a cycle."""

    def __init__(
        self,
        program: str,
        seed: int,
        end: Callable[[RunningMember], object] = RunningMember.kill,
    ) -> None:
        self.tally = Tally()
        self._end = end
        self._member = RunningMember(program)
        self._random = random.Random(seed)
        self._noted: list[Acknowledged] = []
        self._floors: dict[bytes, Acknowledged] = {}  # of each key the newest before a compaction
        self._revision = 0  # no answer may be below it any more

    def run(self, cycles: int) -> Tally:
        """Run until ``cycles`` are done or something was lost."""
        member = self._member
        try:
            member.start()
            while self.tally.cycles < cycles and not self.tally.problems:
                self._cycle()
            member.stop()
            member.start()
            self._check()
        finally:
            member.close()
        return self.tally

    def _cycle(self) -> None:
        tally = self.tally
        writers = [Writer(self._member.endpoint, i, tally.cycles) for i in range(CLIENTS)]
        for writer in writers:
            writer.start()
        time.sleep(self._random.uniform(*LOAD_S))
        self._end(self._member)
        for writer in writers:
            writer.join()
            self._noted += writer.acknowledged
            tally.acknowledged += len(writer.acknowledged)
            tally.errors += len(writer.errors)
            tally.problems += [f"a write was refused: {text}" for text in writer.errors[:1]]
        started = time.monotonic()
        self._member.start(RESTART_TIMEOUT_S)
        tally.restart_s.append(time.monotonic() - started)
        tally.cycles += 1
        self._check()
        if tally.cycles % COMPACTION_EVERY == 0:
            self._compact()

    def _check(self) -> None:
        """Read every noted write at its revision."""
        self._revision = max([self._revision, *(write.revision for write in self._noted)])
        client = WireClient(self._member.endpoint)
        for start in range(0, len(self._noted), CHECK_BURST):
            self._check_burst(client, self._noted[start : start + CHECK_BURST], is_exact=True)
        floors = list(self._floors.values())
        for start in range(0, len(floors), CHECK_BURST):
            self._check_burst(client, floors[start : start + CHECK_BURST], is_exact=False)
        client.close()

    def _check_burst(
        self, client: WireClient, writes: list[Acknowledged], *, is_exact: bool
    ) -> None:
        """Read ``writes`` at their revisions, or now, when newer ones may stand there."""
        calls = []
        for write in writes:
            request = pb.RangeRequest(key=write.key, revision=write.revision if is_exact else 0)
            calls.append((RANGE, request.SerializeToString()))
        streams = client.begin(calls)
        client.finish(streams)
        for stream, write in zip(streams, writes, strict=True):
            if stream.code != 0:
                self.tally.problems.append(f"{write}: {stream.code} {stream.text}")
                continue
            answer = pb.RangeResponse.FromString(stream.messages[0])
            self.tally.checked += 1
            found = [(kv.value, kv.mod_revision) for kv in answer.kvs]
            is_newer = not is_exact and len(found) == 1 and found[0][1] > write.revision
            if found != [(write.value, write.revision)] and not is_newer:
                self.tally.problems.append(f"{write} reads {found}")
            if answer.header.revision < self._revision:
                self.tally.problems.append(
                    f"revision {answer.header.revision} after {self._revision} was seen"
                )
            self._revision = max(self._revision, answer.header.revision)

    def _compact(self) -> None:
        """Compact at the present revision; the load of the next cycle meets the deleting."""
        client = WireClient(self._member.endpoint)
        request = pb.CompactionRequest(revision=self._revision)
        stream = client.call("/etcdserverpb.KV/Compact", request.SerializeToString())
        client.close()
        if stream.code != 0:
            self.tally.problems.append(f"compaction: {stream.code} {stream.text}")
        self.tally.compactions += 1
        for write in self._noted:
            known = self._floors.get(write.key)
            if known is None or write.revision > known.revision:
                self._floors[write.key] = write
        self._noted = [write for write in self._noted if write.revision >= self._revision]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.integration.kill_loop", description=__doc__
    )
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--program", choices=PROGRAMS, default="etcdtw")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    tally = KillLoop(options.program, options.seed).run(options.cycles)
    restarts = sorted(tally.restart_s)
    for problem in tally.problems[:20]:
        print(problem)
    print(f"cycles        {tally.cycles}")
    print(f"acknowledged  {tally.acknowledged}")
    print(f"reads checked {tally.checked}")
    print(f"compactions   {tally.compactions}")
    if restarts:
        print(
            f"restart       median {restarts[len(restarts) // 2]:.2f} s, most {restarts[-1]:.2f} s"
        )
    print(f"lost or wrong {len(tally.problems)}")
    return 1 if tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())
