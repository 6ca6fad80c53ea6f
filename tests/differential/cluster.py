"""One sequence of operations against a single real etcd and a cluster, answer by answer.

``python -m tests.differential.cluster --operations 100000 --programs etcd,etcd,etcdtw``

Every operation goes through another member than the last one; leadership goes round, each
member leading for an equal share.  Watchers are spread over the members.  HashKV of each member is
compared with that of the single one at every checkpoint.  ``--programs etcd,etcd,etcd`` is the
control: whatever it finds would be a fault of the comparison.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from etcdtw.wire import etcdserverpb as pb
from tests.differential import operations as ops
from tests.differential.__main__ import report
from tests.differential.lockstep import WATCH_STREAMS, Lockstep, Outcome, forgive_extension
from tests.differential.normalise import TTL_TOLERANCE_S, Answer
from tests.differential.operations import Operation
from tests.differential.watches import WatchPair
from tests.support.cluster_processes import ELECTION_S, Cluster, ClusterMember
from tests.support.processes import OLDER_LINES, RunningMember
from tests.support.wire_client import ConnectionFailedError, WireClient

CHECKPOINT_EVERY: Final = 500  # operations, at least
ROUNDS_OF_LEADERS: Final = 2  # how often each member leads
# A new leader counts every lease from its whole TTL again, and an election timeout on top.
EXTENSION_S: Final = int(ELECTION_S) + TTL_TOLERANCE_S
NO_FSYNC: Final = "--unsafe-no-fsync"


class ClusterLockstep(Lockstep):
    """One sequence of ``seed``: left is the single member, right each one of ``cluster``."""

    def __init__(self, left: str, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._members = cluster.all
        super().__init__(left, self._members[0].endpoint, seed)
        self._watches.close()
        endpoints = [member.endpoint for member in self._members]
        self._watches = WatchPair(left, endpoints, WATCH_STREAMS)
        rest = [WireClient(endpoint) for endpoint in endpoints[1:]]
        self._rights = [self._clients[1], *rest]
        self._right_keep_alives = [
            self._keep_alives[1],
            *(client.open(ops.KEEP_ALIVE) for client in rest),
        ]
        self._has_older = any(member.program in OLDER_LINES for member in self._members)
        self._at = 0
        self._current: set[int] = set()  # members that have surely applied all there is
        self._checked_at = 0
        self.led: Counter[str] = Counter()  # operations under each leader

    def close(self) -> None:
        super().close()
        for client in self._rights:
            client.close()

    def run_led_in_turn(self, count: int) -> Outcome:
        """Make ``count`` operations, each member leading for its share of them."""
        turns = [member for _ in range(ROUNDS_OF_LEADERS) for member in self._members]
        for i, member in enumerate(turns, 1):
            began = self.outcome.operations
            self._lead(member)
            wanted = count * i // len(turns)
            if i == len(turns):
                self.run(wanted)
            else:
                self._run_to(wanted)
            self.led[f"{member.name} {member.program}"] += self.outcome.operations - began
        return self.outcome

    def _run_to(self, count: int) -> None:
        try:
            while self._goes_on() and (self.outcome.operations < count or self.source.is_bound):
                self._step(self.source.next())
            self._flush()
        except ConnectionFailedError as error:
            self._differ("stream or connection", str(error), "")

    def _lead(self, member: ClusterMember) -> None:
        self._cluster.move_leader(member)
        self._current.clear()

    # -- through each member in turn -----------------------------------------------------------

    def _step(self, operation: Operation) -> None:
        if operation.path == ops.WATCH:
            for i in range(len(self._members)):
                self._catch_up(i)
        elif operation.path == ops.RANGE_STREAM and self._has_older:
            operation.path = ops.RANGE  # up to 3.6 there are no streams
        elif operation.path == ops.TXN:
            oldest = max(self.source.compact_revision, 1)
            keep_revisions_within(operation.request, oldest, self.source.revision)
        super()._step(operation)

    def _unary(self, operations: list[Operation]) -> None:
        self._choose_next()
        super()._unary(operations)
        if not all(operation.is_read for operation in operations):
            self._current = {self._at}

    def _keep_alive(self, operation: Operation) -> None:
        self._choose_next()
        super()._keep_alive(operation)

    def _choose_next(self) -> None:
        self._choose((self._at + 1) % len(self._members))

    def _choose(self, at: int) -> None:
        self._at = at
        self._clients = (self._clients[0], self._rights[at])
        self._keep_alives = [self._keep_alives[0], self._right_keep_alives[at]]
        self._catch_up(at)

    def _catch_up(self, at: int) -> None:
        """Let a member apply all there is: what is answered locally may else tell the past."""
        if at in self._current:
            return
        request = pb.RangeRequest(key=b"\0", count_only=True)
        stream = self._rights[at].call(ops.RANGE, request.SerializeToString())
        if stream.code != 0:
            raise ConnectionFailedError(f"member {at} does not catch up: {stream.text}")
        self._current.add(at)

    # -- comparing -----------------------------------------------------------------------------

    def _settle(self) -> None:
        super()._settle()
        if self.outcome.operations - self._checked_at >= CHECKPOINT_EVERY:
            self._checkpoint()

    def _close_checks(self) -> None:
        super()._close_checks()
        self._checkpoint()

    def _checkpoint(self) -> None:
        """Compare HashKV of each member."""
        self._checked_at = self.outcome.operations
        for _ in self._members:
            self._unary([Operation(ops.HASH_KV, pb.HashKVRequest(), is_read=True)])

    def _compare(self, operation: Operation, left: Answer, right: Answer) -> None:
        if operation.path == ops.TIME_TO_LIVE and left.response and right.response:
            forgive_extension(left.response, right.response, EXTENSION_S)
        program = self._members[self._at].program
        if operation.path == ops.TXN and program in OLDER_LINES and left.code and right.code:
            # Of several reasons up to 3.6 a put's is told before a range's.
            right = Answer(left.code, left.text, None)
        super()._compare(operation, left, right)


def keep_revisions_within(txn: Any, oldest: int, newest: int) -> None:
    """Make every range of ``txn``, at any depth, one that does not fail for its revision.

    etcd 3.5.1 fails such a txn on the member that was asked alone; the others skip its ranges and
    make its puts, and the cluster has parted (etcd #18667, seen here with three real members).
    """
    for op in (*txn.success, *txn.failure):
        if op.HasField("request_range") and not oldest <= op.request_range.revision <= newest:
            op.request_range.revision = 0
        elif op.HasField("request_txn"):
            keep_revisions_within(op.request_txn, oldest, newest)


def run_sequence(programs: Sequence[str], seed: int, count: int) -> tuple[Outcome, Counter[str]]:
    """Start a single etcd and a cluster, run one sequence against them, stop them."""
    cluster = Cluster(programs)
    for member in cluster.all:
        if member.program in ("etcd", "etcd35", "etcd36"):
            member.flags.append(NO_FSYNC)
    with RunningMember("etcd", flags=[NO_FSYNC]) as single, cluster:
        lockstep = ClusterLockstep(single.endpoint, cluster, seed)
        try:
            outcome = lockstep.run_led_in_turn(count)
        finally:
            lockstep.close()
        try:
            cluster.check_logs()
        except AssertionError as error:
            outcome.differences.append(str(error))
        if outcome.differences:
            print(f"logs of the members: {cluster.keep_logs()}")
    return outcome, lockstep.led


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.differential.cluster", description=__doc__
    )
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--programs", default="etcd,etcd,etcdtw", help="one for each member")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    programs = options.programs.split(",")
    started = time.monotonic()
    outcome, led = run_sequence(programs, seed, options.operations)
    print(f"members      {' '.join(programs)}")
    print(f"led          {', '.join(f'{name}: {count}' for name, count in led.items())}")
    return report([outcome], time.monotonic() - started, [seed])


if __name__ == "__main__":
    sys.exit(main())
