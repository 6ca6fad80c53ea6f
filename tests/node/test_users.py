"""Who asks, from the call to where an entry is applied: on this member, and from the log."""

from __future__ import annotations

from typing import Any

import pytest

from etcdtw.apply.applier import FIELD_ALARM, FIELD_PUT
from etcdtw.auth.switch import Switch
from etcdtw.grpc.caller import Caller
from etcdtw.mvcc.backend import BUCKET_AUTH_USERS
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.entry_header import NOBODY, Asker
from tests.support.model_state import State
from tests.support.node_rig import NodeRig
from tests.support.recorded_call import RecordedCall

ALICE = Asker("alice", 7)


class RefusedError(Exception):
    """No."""


class Judge:
    """Knows callers by their token, and refuses all others."""

    def __init__(self) -> None:
        self.switch = Switch(is_on=True)
        self.judged: list[tuple[Asker, int]] = []

    def identify(self, caller: Caller) -> Asker | Exception:
        if caller.token is None:
            return RefusedError("nobody")
        return Asker(caller.token.decode(), 7)

    def own(self) -> Asker:
        return ALICE

    def refusal(self, asker: Asker, field: int, request: Any) -> Exception | None:
        self.judged.append((asker, field))
        is_refused = field == FIELD_PUT and asker.user.startswith("mallory")
        return RefusedError(asker.user[:7]) if is_refused else None

    def checked(self) -> None:
        """Nothing took steps."""


def put_as(rig: NodeRig, name: str | None, key: bytes) -> None:
    call = RecordedCall()
    call.caller = Caller("", "", None if name is None else name.encode())
    rig.call = call
    rig.put(key)
    rig.run()


def texts(rig: NodeRig) -> list[str]:
    return [str(applied.error or "") for applied in rig.outcomes]


@pytest.mark.parametrize("name", ["mallory", "mallory" * 20, "mallory" * 3_000])
def test_apply_hears_who_asked_and_its_refusal_is_the_outcome(name: str) -> None:
    judge = Judge()
    rig = NodeRig(identify=judge, permissions=judge).start()
    put_as(rig, "alice", b"a")
    put_as(rig, name, b"b")
    assert texts(rig) == ["", "mallory"]
    assert judge.judged[-2:] == [(ALICE, FIELD_PUT), (Asker(name, 7), FIELD_PUT)]
    assert rig.state.get(b"a") is not None
    assert rig.state.get(b"b") is None


def test_whoever_cannot_be_identified_gets_nothing_into_the_log() -> None:
    judge = Judge()
    rig = NodeRig(identify=judge, permissions=judge).start()
    last_index = rig.log.last_index()
    put_as(rig, None, b"a")
    assert texts(rig) == ["nobody"]
    assert rig.log.last_index() == last_index


def test_a_member_that_reads_its_log_judges_as_the_one_that_was_asked() -> None:
    judge = Judge()
    rig = NodeRig(identify=judge, permissions=judge).start()
    for i, name in enumerate(["alice", "mallory", "mallory" * 20]):
        put_as(rig, name, b"k%d" % i)
    again = Judge()
    other = NodeRig(rig.log, State(), permissions=again).start()
    puts = [asker for asker, field in judge.judged if field == FIELD_PUT]
    assert [asker for asker, field in again.judged if field == FIELD_PUT] == puts
    assert [other.state.get(b"k%d" % i) is None for i in range(3)] == [False, True, True]


def test_without_users_all_are_nobody() -> None:
    judge = Judge()
    rig = NodeRig(permissions=judge).start()
    put_as(rig, "alice", b"a")
    assert judge.judged[-1] == (NOBODY, FIELD_PUT)
    data = rig.log.entries(rig.log.last_index(), rig.log.last_index() + 1, 1 << 20)[0].data
    assert not pb.InternalRaftRequest.FromString(data).header.username


def test_what_a_member_proposes_for_itself_is_asked_for_by_root() -> None:
    judge = Judge()
    rig = NodeRig(identify=judge, permissions=judge).start()
    rig.node.duties.quota.look(0)
    rig.node.own.ask_alarm(pb.AlarmRequest.ACTIVATE, 1, pb.NOSPACE)
    rig.run()
    assert judge.judged[-1] == (ALICE, FIELD_ALARM)


def test_while_nobody_is_asked_nothing_is_looked_up() -> None:
    judge = Judge()
    judge.switch.is_on = False
    rig = NodeRig(identify=judge, permissions=judge).start()
    put_as(rig, None, b"a")
    assert texts(rig) == [""]
    assert judge.judged == []


def test_a_password_in_plain_text_is_hashed_while_the_node_goes_on() -> None:
    rig = NodeRig().start()
    add = pb.InternalRaftRequest(
        header=pb.RequestHeader(ID=9),
        auth_user_add=pb.AuthUserAddRequest(name="bob", password="pw"),
    )
    rig.node.own.propose_octets(lambda request_id: add.SerializeToString())
    rig.put(b"k")
    rig.run()
    assert rig.outcomes == []
    assert rig.clock.calls == [] or all(c.getTime() > rig.clock.seconds() for c in rig.clock.calls)
    (late,) = rig.hashes.started
    late.make()
    rig.run()
    assert texts(rig) == [""]
    row = rig.state.bucket_get(BUCKET_AUTH_USERS, b"bob")
    assert row is not None
    assert b"hash of pw" in row
