"""Changes of membership on the wire, in the log, and as sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdtw.raft import confchange
from etcdtw.raft.confchange import (
    ADD_LEARNER_NODE,
    ADD_NODE,
    LEAVE_JOINT,
    REMOVE_NODE,
    TRANSITION_JOINT_EXPLICIT,
    UPDATE_NODE,
    ConfChange,
    Configuration,
    bootstrap_log,
    changed,
    decode_conf_change,
    encode_conf_change,
)
from etcdtw.raft.entry import ENTRY_CONF_CHANGE, ENTRY_CONF_CHANGE_V2, ConfState, Entry
from etcdtw.raft.errors import ConfChangeError

CHANGES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=4).map(tuple)


@given(CHANGES, st.integers(0, 2), st.binary(max_size=5))
def test_a_change_survives_the_wire(
    changes: tuple[tuple[int, int], ...], transition: int, context: bytes
) -> None:
    change = ConfChange(changes, transition, context)
    data = encode_conf_change(change)
    assert decode_conf_change(Entry(1, 1, ENTRY_CONF_CHANGE_V2, data)) == change


def test_a_first_version_change_survives_the_wire_too() -> None:
    change = ConfChange(((REMOVE_NODE, 7),), 0, b"why", ENTRY_CONF_CHANGE, 99)
    data = encode_conf_change(change)
    assert decode_conf_change(Entry(1, 1, ENTRY_CONF_CHANGE, data)) == change


def test_leaving_a_joint_configuration_takes_no_octets() -> None:
    assert encode_conf_change(LEAVE_JOINT) == b""
    assert decode_conf_change(Entry(1, 1, ENTRY_CONF_CHANGE_V2, b"")).leaves_joint()


def test_malformed_octets_are_named_as_such() -> None:
    with pytest.raises(ConfChangeError, match="malformed conf change at index 5"):
        decode_conf_change(Entry(1, 5, ENTRY_CONF_CHANGE_V2, b"\xff\xff"))


def test_an_unknown_kind_of_change_is_refused() -> None:
    with pytest.raises(ConfChangeError, match="unexpected conf type 9"):
        confchange.simple(Configuration(frozenset({1})), [(9, 2)])


def test_a_bootstrapped_log_is_committed_and_adds_every_member() -> None:
    hard_state, entries = bootstrap_log([(3, b"three"), (5, b"five")])
    assert (hard_state.term, hard_state.vote, hard_state.commit) == (1, 0, 2)
    config = Configuration()
    for entry in entries:
        config = changed(config, decode_conf_change(entry))
    assert config.voters == {3, 5}
    assert [decode_conf_change(entry).context for entry in entries] == [b"three", b"five"]


def test_a_change_of_member_zero_changes_nothing() -> None:
    config = Configuration(frozenset({1, 2}))
    assert changed(config, ConfChange(((ADD_NODE, 0),))) == config
    assert changed(config, ConfChange(((UPDATE_NODE, 2),))) == config


def test_a_conf_state_and_its_configuration_are_the_same() -> None:
    state = ConfState((1, 2), (4,), (1, 3), (3,), True)
    config = confchange.restored(state)
    assert config.conf_state() == state
    assert config.members() == [1, 2, 3, 4]
    assert str(config) == "voters=(1 2)&&(1 3) learners=(4) learners_next=(3) autoleave"


@given(CHANGES, st.integers(0, 2))
def test_thesis_4_3_every_configuration_reached_is_sound(
    changes: tuple[tuple[int, int], ...], transition: int
) -> None:
    config = Configuration(frozenset({1, 2, 3}), learners=frozenset({4}))
    try:
        result = changed(config, ConfChange(changes, transition))
    except ConfChangeError:
        return
    assert result.voters
    assert not result.learners & (result.voters | result.outgoing)
    assert result.learners_next <= result.outgoing
    if result.is_joint():
        assert result.outgoing == config.voters
        final = changed(result, LEAVE_JOINT)
        assert not final.is_joint()
        assert final.learners == result.learners | result.learners_next
    else:
        assert len(result.voters ^ config.voters) <= 1


def test_an_explicit_joint_configuration_does_not_leave_by_itself() -> None:
    change = ConfChange(((ADD_LEARNER_NODE, 1),), TRANSITION_JOINT_EXPLICIT)
    config = changed(Configuration(frozenset({1, 2})), ConfChange(change.changes, 2))
    assert not config.auto_leave
    assert config.learners_next == {1}
