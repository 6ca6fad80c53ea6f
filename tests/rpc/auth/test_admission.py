"""What stands before each method while users are asked."""

from __future__ import annotations

import pytest

from etcdtw.grpc.call import BIDI_STREAM, UNARY, Call, Method, StatusError
from etcdtw.grpc.caller import Caller
from etcdtw.rpc.auth.admission import HELD_MAX, TOO_MANY_HELD
from tests.rpc.auth.auth_service_rig import AuthServiceRig, showing
from tests.support.recorded_call import RecordedCall

STATUS = "/etcdserverpb.Maintenance/Status"
COMPACT = "/etcdserverpb.KV/Compact"
WATCH = "/etcdserverpb.Watch/Watch"
PUT = "/etcdserverpb.KV/Put"
EMPTY = (3, "etcdserver: user name is empty")
DENIED = (7, "etcdserver: permission denied")


@pytest.fixture
def rig() -> AuthServiceRig:
    made = AuthServiceRig()
    for name in ("root", "ann"):
        made.auth.add_user(name, b"", no_password=False)
    made.auth.grant_role("root", "root")
    made.auth.enable()
    made.tokens.assigned("r.0", "root")
    made.tokens.assigned("a.0", "ann")
    return made


def unary(call: Call, message: bytes) -> bytes:
    if message == b"raise":
        raise StatusError(9, "raised")
    return b"answer to " + message


def call_as(
    rig: AuthServiceRig, path: str, caller: Caller | None = None, message: bytes = b"m"
) -> RecordedCall:
    """Call a unary method as the server does."""
    caller = caller or Caller("", "")
    method = rig.admission(
        Method(path, UNARY, unary, None), lambda name: caller.token if name == b"token" else None
    )
    call = RecordedCall()
    call.caller = caller
    assert method.unary is not None
    answer = method.unary(call, message)
    if answer is not None:
        call.reply(answer)
    return call


def test_each_caller_gets_what_the_table_says(rig: AuthServiceRig) -> None:
    root, ann = showing("r.0"), showing("a.0")
    ok = (0, "")
    assert call_as(rig, STATUS).status == EMPTY
    assert call_as(rig, STATUS, ann).status == ok
    assert call_as(rig, COMPACT).status == EMPTY
    assert call_as(rig, COMPACT, ann).status == DENIED
    assert call_as(rig, COMPACT, root).status == ok
    assert call_as(rig, COMPACT, showing("no.0")).status == (16, "etcdserver: invalid auth token")
    assert call_as(rig, "/etcdserverpb.Auth/Authenticate").status == ok
    assert call_as(rig, PUT).status == ok  # judged where it is applied
    # What nobody thought of is shut.
    assert call_as(rig, "/etcdserverpb.New/Method", ann).status == DENIED
    rig.auth.disable()
    assert call_as(rig, COMPACT, showing("no.0")).status == ok


def test_streams_are_refused_at_their_opening(rig: AuthServiceRig) -> None:
    opened: list[Call] = []
    snapshot = Method("/etcdserverpb.Maintenance/Snapshot", BIDI_STREAM, None, opened.append)
    method = rig.admission(snapshot, lambda name: None)
    call = RecordedCall()
    assert method.opened is not None
    method.opened(call)
    assert (call.status, opened) == (EMPTY, [])
    call = RecordedCall()
    call.caller = showing("r.0")
    method.opened(call)
    assert opened == [call]


def ahead(rig: AuthServiceRig) -> str:
    """Return a token of an entry that this member has not applied yet."""
    return f"a.{rig.node_rig.node.applied_index}"


def test_a_member_that_is_behind_waits_once_for_what_is_committed(rig: AuthServiceRig) -> None:
    token = ahead(rig)
    call = call_as(rig, STATUS, showing(token))
    assert call.is_open
    rig.tokens.assigned(token, "ann")
    rig.node_rig.run()
    assert (call.status, call.replies) == ((0, ""), [b"answer to m"])
    # Nobody ever gave this one: it is refused, and holds up nobody.
    call = call_as(rig, STATUS, showing("a.999999"))
    rig.node_rig.run()
    assert call.status == (16, "etcdserver: invalid auth token")
    call = call_as(rig, PUT, showing(token), b"raise")
    rig.node_rig.run()
    assert call.status == (9, "raised")
    # A token that is known waits for nothing.
    assert call_as(rig, STATUS, showing("a.0")).status == (0, "")
    rig.auth.disable()
    assert call_as(rig, STATUS, showing("a.999999")).status == (0, "")


def test_a_caller_who_is_gone_is_not_called_for(rig: AuthServiceRig) -> None:
    call = call_as(rig, PUT, showing("a.999999"), b"raise")
    call.fail(1, "canceled")
    rig.node_rig.run()
    assert call.status == (1, "canceled")


class Stream:
    """A service's end of a stream: notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def opened(self, call: Call) -> None:
        call.on_message = self.heard.append
        call.on_half_close = lambda: self.heard.append(b"half closed")


def test_a_stream_loses_nothing_while_its_token_is_waited_for(rig: AuthServiceRig) -> None:
    service = Stream()
    token = ahead(rig).encode()
    method = rig.admission(Method(WATCH, BIDI_STREAM, None, service.opened), lambda name: token)
    call = RecordedCall()
    assert method.opened is not None
    method.opened(call)
    for i in range(HELD_MAX):
        call.receive(b"%d" % i)
    call.half_close()
    assert service.heard == []
    rig.node_rig.run()
    assert service.heard == [b"%d" % i for i in range(HELD_MAX)] + [b"half closed"]
    # And keeps no more than so much.
    call = RecordedCall()
    method.opened(call)
    for i in range(HELD_MAX + 1):
        call.receive(b"%d" % i)
    assert call.status == (8, TOO_MANY_HELD)
    rig.node_rig.run()
    assert len(service.heard) == HELD_MAX + 1
