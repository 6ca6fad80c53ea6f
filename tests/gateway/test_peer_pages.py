"""The page of the peer port by which members of ours know each other."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from etcdtw import __version__
from etcdtw.gateway.peer_pages import PROGRAM, PROGRAM_NAME, MemberPages
from etcdtw.transport.peer.seams import PageAnswer
from tests.support.node_rig import NodeRig


@pytest.mark.parametrize(
    ("method", "status", "body"),
    [
        ("GET", 200, b"%b %b\n" % (PROGRAM_NAME, __version__.encode())),
        ("POST", 405, b"Method Not Allowed\n"),
    ],
)
def test_a_member_says_what_it_is(method: str, status: int, body: bytes) -> None:
    nothing: Any = None
    page = MemberPages(NodeRig().node, nothing, nothing).page(method, PROGRAM, {}, b"")
    assert isinstance(page, Deferred)
    answers: list[PageAnswer] = []
    page.addCallback(answers.append)
    assert (answers[0].status, answers[0].body) == (status, body)
