"""Who makes a call: what the connection has proved, and what the call shows."""

from __future__ import annotations

import pytest

from etcdtw.grpc.caller import NOBODY_KNOWN
from tests.grpc.grpc_rig import ServerRig


@pytest.fixture
def rig() -> ServerRig:
    return ServerRig()


def test_a_call_tells_whose_connection_it_is_and_which_token_came_with_it(rig: ServerRig) -> None:
    rig.request("Wait", b"x")
    rig.request("Wait", b"x", (b"token", b"t.1"))
    rig.begin("Bidi", (b"token", b"t.2"))
    rig.pump()
    callers = [call.caller for call in rig.calls]
    assert [(one.address, one.common_name) for one in callers] == [("10.0.0.7", "alice")] * 3
    assert [one.token for one in callers] == [None, b"t.1", b"t.2"]
    rig.calls[1].reply(b"")
    assert rig.calls[1].caller is NOBODY_KNOWN


def test_calls_with_the_same_head_are_made_by_one_caller(rig: ServerRig) -> None:
    for token in (b"t.1", b"t.1", b"t.1", b"t.2"):
        rig.request("Wait", b"x", (b"token", token))
    _, second, third, other = [call.caller for call in rig.calls]
    assert second is third
    assert other.token == b"t.2"
