"""Linearizable reads: rounds, contexts, retries and time-outs."""

from __future__ import annotations

from etcdtw.apply.errors import RequestTimeoutError, StoppedError
from etcdtw.grpc.call import Call
from etcdtw.node.intake.reads import RETRY_MS, ROUNDS_MAX, Reads
from etcdtw.node.no_call import NoCall


class ReadsRig:
    """`Reads` with a seven-second time-out and the outcomes of everything asked."""

    def __init__(self) -> None:
        self.reads = Reads(timeout_ms=7_000)
        self.outcomes: list[Exception | None] = []
        self.call: Call = NoCall()

    def ask(self, now_ms: int) -> None:
        self.reads.ask(self.call, lambda call, error: self.outcomes.append(error), now_ms)

    def answer(self, applied_index: int) -> int:
        self.reads.gather(applied_index)
        ready = list(self.reads.ready)
        self.reads.ready.clear()
        for call, done, _ in ready:
            done(call, None)
        return len(ready)


def test_all_reads_of_a_turn_share_one_round() -> None:
    rig = ReadsRig()
    rig.ask(0)
    rig.ask(0)
    context = rig.reads.next_round(0)
    assert context is not None
    assert rig.reads.next_round(0) is None
    rig.reads.confirm(context, 5)
    assert rig.answer(5) == 2
    assert rig.reads.is_idle


def test_a_read_waits_until_the_confirmed_index_is_applied() -> None:
    rig = ReadsRig()
    rig.ask(0)
    context = rig.reads.next_round(0)
    assert context is not None
    rig.reads.confirm(context, 9)
    assert rig.answer(8) == 0
    assert rig.answer(9) == 1


def test_issue_20418_a_retry_has_a_new_context_and_the_old_confirmation_is_worth_nothing() -> None:
    rig = ReadsRig()
    rig.ask(0)
    first = rig.reads.next_round(0)
    second = rig.reads.next_round(RETRY_MS)
    assert first is not None
    assert second is not None
    assert first != second
    rig.reads.confirm(first, 1)
    assert rig.answer(100) == 0
    rig.reads.confirm(second, 1)
    assert rig.answer(100) == 1


def test_a_round_is_not_retried_before_its_time() -> None:
    rig = ReadsRig()
    rig.ask(0)
    assert rig.reads.next_round(0) is not None
    assert rig.reads.next_round(RETRY_MS - 1) is None


def test_rounds_are_bounded_and_later_reads_wait_for_a_place() -> None:
    rig = ReadsRig()
    for _ in range(ROUNDS_MAX):
        rig.ask(0)
        assert rig.reads.next_round(0) is not None
    rig.ask(0)
    assert rig.reads.next_round(0) is None


def test_a_read_fails_with_request_timed_out_wherever_it_waits() -> None:
    rig = ReadsRig()
    rig.ask(0)
    confirmed = rig.reads.next_round(0)
    assert confirmed is not None
    rig.reads.confirm(confirmed, 50)
    rig.ask(0)
    assert rig.reads.next_round(0) is not None
    rig.ask(0)
    rig.ask(3_000)
    rig.reads.expire(6_999)
    assert rig.outcomes == []
    rig.reads.expire(7_000)
    assert [type(outcome) for outcome in rig.outcomes] == [RequestTimeoutError] * 3
    assert rig.reads.failed_total == 3
    assert not rig.reads.is_idle


def test_old_reads_time_out_although_new_ones_keep_coming() -> None:
    rig = ReadsRig()
    for now_ms in range(0, 10_000, 100):  # without a leader: no round is ever confirmed
        rig.ask(now_ms)
        if now_ms == 4_000:
            rig.reads.ask_again()
        rig.reads.next_round(now_ms)
        rig.reads.expire(now_ms)
        assert len(rig.outcomes) == max(0, now_ms - 7_000 + 100) // 100


def test_stopping_fails_every_read() -> None:
    rig = ReadsRig()
    rig.ask(0)
    confirmed = rig.reads.next_round(0)
    assert confirmed is not None
    rig.reads.confirm(confirmed, 50)
    rig.ask(0)
    rig.reads.next_round(0)
    rig.ask(0)
    rig.reads.fail_all(StoppedError())
    assert [type(outcome) for outcome in rig.outcomes] == [StoppedError] * 3
    assert rig.reads.is_idle
