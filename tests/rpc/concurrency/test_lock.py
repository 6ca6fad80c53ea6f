"""Locks in etcd's layout: who waits, for whom, and what is left of those who go."""

from __future__ import annotations

import pytest

from etcdtw.grpc.call import RESOURCE_EXHAUSTED, UNKNOWN, Call
from etcdtw.grpc.caller import Caller
from etcdtw.rpc.concurrency.contender import CONTENDERS_FEW, CONTENDERS_MAX
from etcdtw.wire import v3lockpb
from tests.rpc.concurrency.arena_rig import ArenaRig
from tests.support.recorded_call import RecordedCall

EXPIRED = (UNKNOWN, "mutex: session is expired")


@pytest.fixture
def rig() -> ArenaRig:
    rig = ArenaRig()
    rig.start()
    return rig


def locked(call: RecordedCall) -> v3lockpb.LockResponse:
    assert call.status == (0, ""), call.status
    return v3lockpb.LockResponse.FromString(call.replies[0])


def test_the_key_is_the_name_and_the_lease_in_hex(rig: ArenaRig) -> None:
    answer = locked(rig.lock(b"a", rig.lease(77)))
    assert answer.key == b"a/4d"
    assert answer.header.revision == 2
    assert rig.stored() == {b"a/4d": b""}
    assert rig.is_empty


def test_who_holds_the_lock_gets_it_again_at_once(rig: ArenaRig) -> None:
    lease = rig.lease(77)
    first = locked(rig.lock(b"a", lease))
    assert locked(rig.lock(b"a", lease)).key == first.key
    assert rig.is_empty


def test_without_a_lease_one_of_a_minute_is_granted(rig: ArenaRig) -> None:
    first = rig.lock(b"a")
    key = locked(first).key
    waits = rig.lock(b"a", rig.lease(77))
    assert waits.status is None
    assert key in rig.stored()
    rig.run(65)
    assert locked(waits).key == b"a/4d"
    assert list(rig.stored()) == [b"a/4d"]


def test_a_lease_that_is_not_there_is_unknown(rig: ArenaRig) -> None:
    assert rig.lock(b"a", 5).status == (UNKNOWN, "etcdserver: requested lease not found")
    assert rig.is_empty


def test_waiters_are_served_in_the_order_in_which_they_came(rig: ArenaRig) -> None:
    calls = [rig.lock(b"a", rig.lease(lease)) for lease in (9, 3, 6)]
    held = [call.status is not None for call in calls]
    assert held == [True, False, False]
    for position in range(2):
        assert rig.unlock(locked(calls[position]).key).status == (0, "")
        rig.run(0.2)
        held = [call.status is not None for call in calls]
        assert held == [True] * (position + 2) + [False] * (1 - position)
    assert rig.is_empty


def test_a_waiter_waits_for_all_before_it(rig: ArenaRig) -> None:
    first, second, third = (rig.lock(b"a", rig.lease(lease)) for lease in (1, 2, 3))
    rig.revoke(2)
    assert third.status is None, "the first still holds it"
    rig.unlock(locked(first).key)
    assert locked(third).key == b"a/3"
    assert second.status == EXPIRED
    assert rig.is_empty


def test_a_session_that_ended_while_it_waited_gets_no_lock(rig: ArenaRig) -> None:
    """etcd #11456: its turn came, its key had gone."""
    first, second = rig.lock(b"a", rig.lease(1)), rig.lock(b"a", rig.lease(2))
    rig.revoke(2)
    rig.unlock(locked(first).key)
    assert second.status == EXPIRED


def test_a_key_of_the_same_name_that_came_later_is_not_its_own(rig: ArenaRig) -> None:
    first, second = rig.lock(b"a", rig.lease(1)), rig.lock(b"a", rig.lease(2))
    rig.delete(b"a/2")
    rig.put(b"a/2", b"", 2)
    rig.unlock(locked(first).key)
    assert second.status == EXPIRED


def test_waiting_goes_on_across_compactions(rig: ArenaRig) -> None:
    first = rig.lock(b"a", rig.lease(1))
    rig.compact()
    second = rig.lock(b"a", rig.lease(2))
    rig.compact()
    assert second.status is None
    rig.unlock(locked(first).key)
    rig.compact()
    rig.run(0.2)
    assert locked(second).key == b"a/2"


def test_who_goes_while_it_waits_leaves_no_key(rig: ArenaRig) -> None:
    rig.lock(b"a", rig.lease(1))
    second = rig.lock(b"a", rig.lease(2))
    assert b"a/2" in rig.stored()
    second.cancel()
    rig.run(0.2)
    assert list(rig.stored()) == [b"a/1"]
    assert rig.is_empty


def test_who_goes_before_its_key_is_there_leaves_none(rig: ArenaRig) -> None:
    lease = rig.lease(1)
    rig.log.holds = True
    call = rig.lock(b"a", lease)
    call.cancel()
    rig.run(0.2)
    rig.log.holds = False
    rig.log.release()
    rig.run(0.2)
    assert rig.stored() == {}
    assert rig.is_empty


def test_who_asks_again_with_its_lease_keeps_the_key_that_the_call_before_leaves(
    rig: ArenaRig,
) -> None:
    first = rig.lock(b"a", rig.lease(1))
    gone, again = rig.lock(b"a", rig.lease(2)), rig.lock(b"a", 2)
    gone.cancel()
    rig.run(0.2)
    rig.unlock(locked(first).key)
    assert locked(again).key == b"a/2"
    assert b"a/2" in rig.stored()
    assert rig.is_empty


def test_a_key_of_another_session_is_no_lock_of_a_name_within(rig: ArenaRig) -> None:
    locked(rig.lock(b"a", rig.lease(1)))
    assert locked(rig.lock(b"ab", rig.lease(2))).key == b"ab/2"
    assert rig.lock(b"a", rig.lease(3)).status is None


def test_unlocking_what_is_not_there_is_no_error(rig: ArenaRig) -> None:
    assert rig.unlock(b"none").status == (0, "")
    assert rig.unlock(b"").status == (UNKNOWN, "etcdserver: key is not provided")


def test_a_lock_that_is_put_as_a_key_counts(rig: ArenaRig) -> None:
    rig.put(b"a/elsewhere")
    call = rig.lock(b"a", rig.lease(1))
    assert call.status is None
    rig.delete(b"a/elsewhere")
    assert locked(call).key == b"a/1"


def test_octets_that_are_no_request_are_refused(rig: ArenaRig) -> None:
    class Garbage:
        def SerializeToString(self) -> bytes:
            return b"\xff"

    assert rig.ask("/v3lockpb.Lock/Lock", Garbage()).status[0] == 13  # type: ignore[index]


def test_what_is_asked_is_asked_as_the_caller_and_counted_apart(rig: ArenaRig) -> None:
    callers: list[Caller] = []
    found = rig.methods.find(b"/etcdserverpb.KV/Txn")
    assert found is not None
    txn = found.unary
    assert txn is not None

    def asked(call: Call, octets: bytes) -> bytes | None:
        callers.append(call.caller)
        return txn(call, octets)

    rig.methods.add_unary(found.path, asked)
    rig.lease(1)
    caller = Caller("10.0.0.1", "alice", b"token")
    rig.ask("/v3lockpb.Lock/Lock", v3lockpb.LockRequest(name=b"a", lease=1), caller)
    assert callers == [caller]
    counted = {one.path.rpartition("/")[2] for one in rig.stats.methods()}
    assert "Txn" not in counted
    assert {one.path.rpartition("/")[2] for one in rig.inner.methods()} == {"Txn"}


def test_only_so_many_may_contend_but_a_few_of_each_address(rig: ArenaRig) -> None:
    refused = (RESOURCE_EXHAUSTED, "etcdtw: too many locks and elections at once")
    key = locked(rig.lock(b"a", rig.lease(1))).key
    waiting = [rig.lock(b"a", rig.lease(2 + i)) for i in range(CONTENDERS_FEW)]
    rig.arena.contenders = CONTENDERS_MAX - 1
    assert rig.lock(b"b", 1).status == (0, "")
    rig.arena.contenders = CONTENDERS_MAX
    assert rig.lock(b"c", 1).status == refused
    other = v3lockpb.LockRequest(name=b"c", lease=1)
    assert rig.ask("/v3lockpb.Lock/Lock", other, Caller("10.0.0.2", "")).status == (0, "")
    # Whoever makes room is never refused.
    assert rig.unlock(key).status == (0, "")
    assert waiting[0].status == (0, "")
