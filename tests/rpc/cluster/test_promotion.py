"""What members say to each other about a promotion."""

from __future__ import annotations

import pytest

from etcdtw.apply.errors import LearnerNotReadyError, NotLeaderError, RequestTimeoutError
from etcdtw.cluster.errors import (
    MemberIdNotFoundError,
    MemberIdRemovedError,
    MemberNotLearnerError,
)
from etcdtw.cluster.member import Member, MemberFormatError
from etcdtw.rpc.cluster.promotion import promotion_answer, promotion_id, promotion_outcome

MEMBER = Member(member_id=5, peer_urls=("http://l:1",), name="l")


def test_done_promotion_comes_with_the_members() -> None:
    status, body = promotion_answer(None, [MEMBER])
    assert (status, body) == (200, b'[{"id":5,"peerURLs":["http://l:1"],"name":"l"}]\n')
    assert promotion_outcome(5, status, body) == (None, (MEMBER,))


@pytest.mark.parametrize(
    ("error", "status", "body", "understood"),
    [
        (MemberIdNotFoundError(5), 404, b"membership: ID not found\n", MemberIdNotFoundError),
        (MemberIdRemovedError(5), 404, b"membership: ID not found\n", MemberIdNotFoundError),
        (
            MemberNotLearnerError(5),
            412,
            b"membership: can only promote a learner member\n",
            MemberNotLearnerError,
        ),
        (
            LearnerNotReadyError(),
            412,
            b"etcdserver: can only promote a learner member which is in sync with leader\n",
            LearnerNotReadyError,
        ),
        (NotLeaderError(), 500, b'{"message":"Internal Server Error"}', RequestTimeoutError),
    ],
)
def test_refusals_are_etcds_and_understood(
    error: Exception, status: int, body: bytes, understood: type[Exception]
) -> None:
    assert promotion_answer(error, []) == (status, body)
    outcome, members = promotion_outcome(5, status, body)
    assert (type(outcome), members) == (understood, ())


def test_answer_that_is_none_is_an_error() -> None:
    assert type(promotion_outcome(5, 200, b"<html>")[0]) is MemberFormatError
    assert type(promotion_outcome(5, 0, b"")[0]) is RequestTimeoutError


def test_id_in_the_path_is_decimal() -> None:
    assert promotion_id("18446744073709551615") == 2**64 - 1
    for text in ("", "zz", "-1", "1f", "18446744073709551616", "1" * 21, "٣"):
        with pytest.raises(ValueError, match=f"member {text} not found in cluster"):
            promotion_id(text)
