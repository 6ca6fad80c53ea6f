"""Runs one sequence of operations against two members in lockstep and compares every answer.

Writes go one at a time, so that both members give the same revisions; reads between two writes
are under way together.  A difference is recorded with its operation and both answers, and can be
had again by its seed and number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from etcdtw.wire import etcdserverpb as pb
from tests.differential import operations as ops
from tests.differential.normalise import TTL_TOLERANCE_S, Answer, answers_agree
from tests.differential.operations import Operation, OperationSource
from tests.differential.watches import WatchDifferenceError, WatchPair
from tests.support.wire_client import ConnectionFailedError, WireClient, WireStream

BURST_MAX: Final = 16  # reads under way together
SETTLE_EVERY: Final = 1000  # operations, at least
DIFFERENCES_MAX: Final = 5  # then the sequence is given up: the stores have parted
WATCH_STREAMS: Final = 3
KEEP_ALIVE_TIMEOUT_S: Final = 10.0


@dataclass(slots=True)
class Outcome:
    """What a sequence came to."""

    operations: int = 0
    errors: int = 0  # answers with another status than OK, equal on both sides
    differences: list[str] = field(default_factory=list)
    hashes: list[tuple[int, int]] = field(default_factory=list)  # (revision, hash), compared
    codes: dict[str, int] = field(default_factory=dict)
    deaths: int = 0  # of real etcd, of itself; the sequence ended there

    def add(self, other: Outcome) -> None:
        """Add what another sequence came to."""
        self.operations += other.operations
        self.errors += other.errors
        self.differences += other.differences
        self.hashes += other.hashes
        self.deaths += other.deaths
        for text, count in other.codes.items():
            self.codes[text] = self.codes.get(text, 0) + count


class Lockstep:
    """One sequence of ``seed`` against the members at ``left`` and ``right``."""

    def __init__(self, left: str, right: str, seed: int) -> None:
        self.seed = seed
        self.source = OperationSource(Random(seed), WATCH_STREAMS)
        self.outcome = Outcome()
        self._clients = (WireClient(left), WireClient(right))
        self._keep_alives = [client.open(ops.KEEP_ALIVE) for client in self._clients]
        self._watches = WatchPair(left, [right], WATCH_STREAMS)
        self._burst: list[Operation] = []
        self._terms: tuple[set[int], set[int]] = (set(), set())
        self._settled_at = 0

    def close(self) -> None:
        self._watches.close()
        for client in self._clients:
            client.close()

    def run(self, count: int) -> Outcome:
        """Make ``count`` operations and the closing checks."""
        try:
            while self.outcome.operations < count and self._goes_on():
                self._step(self.source.next())
            self._flush()
            if self._goes_on():
                self._close_checks()
        except (ConnectionFailedError, WatchDifferenceError) as error:
            self._differ("stream or connection", str(error), "")
        return self.outcome

    def _goes_on(self) -> bool:
        return len(self.outcome.differences) < DIFFERENCES_MAX

    def _step(self, operation: Operation) -> None:
        self.outcome.operations += 1
        if operation.is_read:
            self._burst.append(operation)
            if len(self._burst) >= BURST_MAX:
                self._flush()
            return
        self._flush()
        if operation.settles or self.outcome.operations - self._settled_at >= SETTLE_EVERY:
            self._settle()
        if operation.path == ops.WATCH:
            self._watches.run(operation, self.source.revision, self.source.compact_revision)
            self.source.watchers = self._watches.active()
        elif operation.path == ops.KEEP_ALIVE:
            self._keep_alive(operation)
        else:
            self._unary([operation])

    def _flush(self) -> None:
        if self._burst:
            burst, self._burst = self._burst, []
            self._unary(burst)

    def _settle(self) -> None:
        self._settled_at = self.outcome.operations
        try:
            self._watches.settle(self.source.revision)
        except WatchDifferenceError as error:
            self._differ("events", str(error), "")
        self.source.watchers = self._watches.active()

    def _unary(self, operations: list[Operation]) -> None:
        calls = [
            (operation.path, operation.request.SerializeToString()) for operation in operations
        ]
        compressed = [operation.is_compressed for operation in operations]
        begun = [client.begin(calls, compressed) for client in self._clients]
        for client, streams in zip(self._clients, begun, strict=True):
            client.finish(streams)
        for operation, left, right in zip(operations, *begun, strict=True):
            self._compare(operation, _answer(operation.path, left), _answer(operation.path, right))

    def _keep_alive(self, operation: Operation) -> None:
        message = operation.request.SerializeToString()
        for client, stream in zip(self._clients, self._keep_alives, strict=True):
            client.send(stream, message)
        answers = []
        for client, stream in zip(self._clients, self._keep_alives, strict=True):
            while not stream.messages and not stream.is_ended:
                if not client.poll(KEEP_ALIVE_TIMEOUT_S):
                    raise ConnectionFailedError(f"{client.endpoint}: no keep-alive answer")
            messages = stream.take_messages()
            response = pb.LeaseKeepAliveResponse.FromString(messages[0]) if messages else None
            answers.append(Answer(stream.code or 0, stream.text, response))
        self._compare(operation, *answers)

    def _compare(self, operation: Operation, left: Answer, right: Answer) -> None:
        outcome = self.outcome
        self._look_at_terms(left, right)
        if operation.path == ops.TIME_TO_LIVE and left.response and right.response:
            for side, answer, other in ((0, left, right), (1, right, left)):
                if len(self._terms[side]) > 1:
                    forgive_extension(other.response, answer.response)
        self.source.observe(operation, left.code, left.response)
        if left.code:
            outcome.errors += 1
            outcome.codes[left.text] = outcome.codes.get(left.text, 0) + 1
        if not answers_agree(operation.path, operation.request, left, right):
            self._differ(operation.describe(), left.describe(), right.describe())
        elif operation.path == ops.HASH_KV and left.code == 0:
            outcome.hashes.append((left.response.header.revision, left.response.hash))

    def _look_at_terms(self, left: Answer, right: Answer) -> None:
        """Note each side's terms: who leads anew counts all leases from their whole TTL."""
        for terms, answer in zip(self._terms, (left, right), strict=True):
            if answer.response is not None:
                terms.add(answer.response.header.raft_term)

    def _differ(self, what: str, left: str, right: str) -> None:
        self.outcome.differences.append(
            f"--- seed {self.seed}, operation {self.outcome.operations}, revision "
            f"{self.source.revision}, compacted {self.source.compact_revision}\n"
            f"{what}\nLEFT: {left}\nRIGHT: {right}"
        )

    def _close_checks(self) -> None:
        """Compare all that is left: watchers, everything stored, leases, hashes."""
        self._settle()
        everything = pb.RangeRequest(key=b"\0", range_end=b"\0")
        last = [
            Operation(ops.RANGE, everything, is_read=True),
            Operation(ops.LEASES, pb.LeaseLeasesRequest(), is_read=True),
            Operation(ops.HASH_KV, pb.HashKVRequest(), is_read=True),
        ]
        last += [
            Operation(ops.TIME_TO_LIVE, pb.LeaseTimeToLiveRequest(ID=lease_id, keys=True))
            for lease_id in sorted(self.source.leases)
        ]
        self._unary(last)
        revision = self.source.revision
        compact = pb.CompactionRequest(revision=revision, physical=True)
        if revision > self.source.compact_revision:
            self._unary([Operation(ops.COMPACT, compact)])
        self._unary([Operation(ops.HASH_KV, pb.HashKVRequest())])


def forgive_extension(left: Any, right: Any, extension_s: int = TTL_TOLERANCE_S) -> None:
    """Take a TTL that a change of leaders has prolonged for what it would be without it."""
    if left.TTL - TTL_TOLERANCE_S <= right.TTL <= left.grantedTTL + extension_s:
        right.TTL = left.TTL


def _answer(path: str, stream: WireStream) -> Answer:
    code = -1 if stream.code is None else stream.code
    if code != 0:
        return Answer(code, stream.text, None, stream.encoding)
    if path == ops.RANGE_STREAM:
        return _merged(stream)
    response = ops.RESPONSES[path].FromString(stream.messages[0])
    return Answer(code, stream.text, response, stream.encoding)


def _merged(stream: WireStream) -> Answer:
    """Return the RangeResponse that the chunks of a stream are, and how it ended.

    How many keys a chunk has is nobody's promise; that the last one has some is.
    """
    whole = pb.RangeResponse()
    chunks: list[Any] = [pb.RangeStreamResponse.FromString(octets) for octets in stream.messages]
    for chunk in chunks:
        whole.MergeFrom(chunk.range_response)
    headers = [chunk.range_response.HasField("header") for chunk in chunks]
    has_keys = [bool(chunk.range_response.kvs) for chunk in chunks]
    is_whole = headers == [False] * (len(chunks) - 1) + [True]
    has_empty = len(chunks) > 1 and not all(has_keys)
    shape = f"{stream.encoding} header at the end {is_whole}, empty chunks {has_empty}"
    return Answer(0, stream.text, whole, shape)
