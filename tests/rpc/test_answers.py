"""What is applied is answered with the header of its revision; what is refused says why."""

from __future__ import annotations

from etcdtw.apply.errors import NoSpaceError
from etcdtw.mvcc.applied import Applied
from etcdtw.rpc.answers import answer_applied
from tests.support.node_rig import NodeRig
from tests.support.recorded_call import RecordedCall


def test_an_answer_begins_with_the_header_of_its_revision() -> None:
    node, call = NodeRig().node, RecordedCall()
    answer_applied(node, call, Applied(7, b"\x10\x01"))
    assert call.replies == [node.header(7) + b"\x10\x01"]


def test_a_refusal_is_told_in_etcds_words() -> None:
    call = RecordedCall()
    answer_applied(NodeRig().node, call, Applied(7, error=NoSpaceError()))
    assert call.status == (8, "etcdserver: mvcc: database space exceeded")
