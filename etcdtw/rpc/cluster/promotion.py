"""A promotion that a member passes on to its leader: POST /members/promote/<decimal id>.

Only the leader knows how far a learner is.  Here is what both sides say to each other; who
carries it is the peers' transport.  Source: etcd's peer contract, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from etcdtw.apply.errors import LearnerNotReadyError, RequestTimeoutError
from etcdtw.cluster.errors import (
    MemberIdNotFoundError,
    MemberIdRemovedError,
    MemberNotLearnerError,
)
from etcdtw.cluster.member import Member, MemberFormatError
from etcdtw.cluster.remote import decode_member_list, encode_member_list

PATH: Final = "/members/promote/"
OK: Final = 200
NOT_FOUND: Final = 404
PRECONDITION_FAILED: Final = 412
INTERNAL_SERVER_ERROR: Final = 500
_NOT_READY: Final = "etcdserver: can only promote a learner member which is in sync with leader"
_FAILED: Final = b'{"message":"Internal Server Error"}'


def promotion_id(text: str) -> int:
    """Return the id behind `PATH`: decimal digits.  Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 2**64):
        raise ValueError(f"member {text} not found in cluster")
    return int(text)


def promotion_answer(error: Exception | None, members: Sequence[Member]) -> tuple[int, bytes]:
    """Return status and body by which the leader says what came of a promotion."""
    if error is None:
        return OK, encode_member_list(members)
    if isinstance(error, MemberIdNotFoundError | MemberIdRemovedError):
        return NOT_FOUND, f"{MemberIdNotFoundError.text}\n".encode()
    if isinstance(error, MemberNotLearnerError):
        return PRECONDITION_FAILED, f"{MemberNotLearnerError.text}\n".encode()
    if isinstance(error, LearnerNotReadyError):
        return PRECONDITION_FAILED, f"{_NOT_READY}\n".encode()
    return INTERNAL_SERVER_ERROR, _FAILED


def promotion_outcome(
    member_id: int, status: int, body: bytes
) -> tuple[Exception | None, tuple[Member, ...]]:
    """Return what a leader's answer means: an error, or the members after the promotion."""
    if status == OK:
        try:
            return None, decode_member_list(body)
        except MemberFormatError as error:
            return error, ()
    if status == NOT_FOUND:
        return MemberIdNotFoundError(member_id), ()
    if status == PRECONDITION_FAILED:
        if _NOT_READY.encode() in body:
            return LearnerNotReadyError(), ()
        return MemberNotLearnerError(member_id), ()
    return RequestTimeoutError(), ()
