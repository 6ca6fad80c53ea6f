"""What clients and peers hear when a member cannot give a hash now."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from etcdtw.gateway.peer_pages import MemberPages
from etcdtw.grpc.call import MethodTable
from etcdtw.rpc.maintenance.service import MaintenanceService
from etcdtw.storage.state.errands import SupersededError
from etcdtw.transport.peer.seams import PageAnswer
from etcdtw.wire import etcdserverpb as pb
from tests.support.node_rig import NodeRig
from tests.support.recorded_call import RecordedCall

SUPERSEDED = "etcdtw: a snapshot takes the place of this member's data; try again"


@pytest.fixture
def rig() -> NodeRig:
    rig = NodeRig().start()
    rig.state.hash_error = SupersededError()
    return rig


@pytest.mark.parametrize(
    ("name", "asked"), [("Hash", pb.HashRequest()), ("HashKV", pb.HashKVRequest())]
)
def test_client_is_told_that_it_may_ask_again(rig: NodeRig, name: str, asked: Any) -> None:
    methods = MethodTable()
    MaintenanceService(rig.node, 0).register(methods)
    method = methods.find(f"/etcdserverpb.Maintenance/{name}".encode())
    assert method is not None
    assert method.unary is not None
    call = RecordedCall()
    assert method.unary(call, asked.SerializeToString()) is None
    assert call.status == (14, SUPERSEDED)


def test_peer_gets_an_error_page(rig: NodeRig) -> None:
    nothing: Any = None
    page = MemberPages(rig.node, nothing, nothing).page("GET", "/members/hashkv", {}, b"{}")
    assert isinstance(page, Deferred)
    answers: list[PageAnswer] = []
    page.addCallback(answers.append)
    assert (answers[0].status, answers[0].body) == (500, SUPERSEDED.encode() + b"\n")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"revision": "x"}', b'{"revision": 1e999}'])
def test_a_peer_that_asks_for_no_revision_is_told_so(rig: NodeRig, body: bytes) -> None:
    nothing: Any = None
    page = MemberPages(rig.node, nothing, nothing).page("GET", "/members/hashkv", {}, body)
    assert isinstance(page, Deferred)
    answers: list[PageAnswer] = []
    page.addCallback(answers.append)
    assert answers[0].status == 400
