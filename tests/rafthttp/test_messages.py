"""Which messages of peers may reach Raft."""

from __future__ import annotations

import pytest

from etcdtw.raft.entry import Entry
from etcdtw.raft.message import (
    LOCAL_TYPES,
    MSG_APP,
    MSG_HEARTBEAT,
    MSG_PROP,
    MSG_READ_INDEX,
    MSG_SNAP,
    Message,
)
from etcdtw.rafthttp.messages import may_travel, refusal

ONE, TWO, GONE = 0xA1, 0xB2, 0xC3


class Members:
    def is_removed(self, member_id: int) -> bool:
        return member_id == GONE


def message(type: int = MSG_HEARTBEAT, *, to: int = ONE, from_id: int = TWO) -> Message:
    return Message(type, to=to, from_id=from_id, term=3)


def why(m: Message, sender_id: int | None = TWO) -> str | None:
    return refusal(m, ONE, sender_id, Members())


def test_a_message_of_its_sender_to_this_member_may_reach_raft() -> None:
    assert why(message()) is None
    assert why(message(), sender_id=None) is None


def test_messages_to_others_and_from_removed_members_are_refused_in_etcds_words() -> None:
    assert why(message(to=TWO)) == "cannot process message to mismatch member b2"
    assert why(message(from_id=GONE)) == "cannot process message from removed member"


def test_only_what_followers_pass_on_may_name_another_sender() -> None:
    assert why(message(from_id=0xD4)) == "cannot process message of d4 from b2"
    assert why(message(MSG_PROP, from_id=0xD4)) is None


@pytest.mark.parametrize("type", [*sorted(LOCAL_TYPES), MSG_SNAP])
def test_what_never_travels_alone_is_ignored(type: int) -> None:
    assert not may_travel(message(type))


def test_only_what_is_asked_before_a_term_is_known_comes_without_one() -> None:
    assert not may_travel(Message(MSG_HEARTBEAT, to=ONE, from_id=TWO, term=0))
    for type in (MSG_PROP, MSG_READ_INDEX):
        assert may_travel(Message(type, to=ONE, from_id=TWO, term=0, entries=[Entry(0, 0)]))
        assert not may_travel(Message(type, to=ONE, from_id=TWO, term=0))


def test_appended_entries_follow_one_another() -> None:
    def append(*indexes: int) -> Message:
        entries = [Entry(3, index) for index in indexes]
        return Message(MSG_APP, to=ONE, from_id=TWO, term=3, index=7, entries=entries)

    assert may_travel(append())
    assert may_travel(append(8, 9))
    assert not may_travel(append(9))
    assert not may_travel(append(8, 10))
