"""Majorities against the definition, spelled out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from etcdtw.raft import quorum

MEMBERS = st.integers(1, 7)
VOTERS = st.frozensets(MEMBERS, max_size=7)
MATCH = st.dictionaries(MEMBERS, st.integers(0, 12))
VOTES = st.dictionaries(MEMBERS, st.booleans())


def naive_committed(voters: frozenset[int], match: dict[int, int]) -> int:
    """Try every index from the top: a majority must have it."""
    for index in range(20, -1, -1):
        have = len([one for one in voters if match.get(one, 0) >= index])
        if have * 2 > len(voters):
            return index
    return quorum.NO_BOUND


@given(VOTERS, MATCH)
def test_committed_index_is_what_a_majority_has(
    voters: frozenset[int], match: dict[int, int]
) -> None:
    assert quorum.committed_index(voters, match) == naive_committed(voters, match)


@given(VOTERS, VOTERS, MATCH)
def test_joint_committed_index_needs_both_majorities(
    incoming: frozenset[int], outgoing: frozenset[int], match: dict[int, int]
) -> None:
    both = quorum.joint_committed_index(incoming, outgoing, match)
    assert both == min(naive_committed(incoming, match), naive_committed(outgoing, match))


@given(VOTERS, VOTES)
def test_a_vote_is_pending_exactly_while_the_missing_could_decide_it(
    voters: frozenset[int], votes: dict[int, bool]
) -> None:
    def won(missing: bool) -> bool:
        granted = len([one for one in voters if votes.get(one, missing)])
        return not voters or granted * 2 > len(voters)

    expected = quorum.VOTE_PENDING
    if won(missing=False):
        expected = quorum.VOTE_WON
    elif not won(missing=True):
        expected = quorum.VOTE_LOST
    assert quorum.vote_result(voters, votes) == expected


@given(VOTERS, VOTERS, VOTES)
def test_a_joint_vote_is_won_by_both_and_lost_by_either(
    incoming: frozenset[int], outgoing: frozenset[int], votes: dict[int, bool]
) -> None:
    halves = {quorum.vote_result(incoming, votes), quorum.vote_result(outgoing, votes)}
    result = quorum.joint_vote_result(incoming, outgoing, votes)
    assert (result == quorum.VOTE_WON) == (halves == {quorum.VOTE_WON})
    assert (result == quorum.VOTE_LOST) == (quorum.VOTE_LOST in halves)
