"""Majorities, plain and joint: what a set of voters has decided so far.

Pure functions over sets of member ids.  Source: Ongaro, "Consensus: Bridging Theory and
Practice", sections 3.4, 3.6.2 and 4.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Final

NO_BOUND: Final = 2**64 - 1  # what an empty half of a joint configuration allows

VOTE_PENDING: Final = 1
VOTE_LOST: Final = 2
VOTE_WON: Final = 3
VOTE_RESULT_NAMES: Final = ("", "VotePending", "VoteLost", "VoteWon")


def committed_index(voters: Set[int], match_index: Mapping[int, int]) -> int:
    """Return the highest index that a majority of ``voters`` acknowledges.

    A voter missing from ``match_index`` counts as 0; other members in it are ignored.
    No voters at all: `NO_BOUND`, so that an empty outgoing half decides nothing.
    """
    if not voters:
        return NO_BOUND
    indexes = sorted([match_index.get(member_id, 0) for member_id in voters])
    # Ascending: from this position upwards stands a bare majority.
    return indexes[(len(indexes) - 1) // 2]


def joint_committed_index(
    incoming: Set[int], outgoing: Set[int], match_index: Mapping[int, int]
) -> int:
    """Return the highest index acknowledged by both majorities."""
    index = committed_index(incoming, match_index)
    if not outgoing:
        return index
    return min(index, committed_index(outgoing, match_index))


def vote_result(voters: Set[int], votes: Mapping[int, bool]) -> int:
    """Return whether ``voters`` have elected (`VOTE_WON`), refused, or not yet decided."""
    granted = 0
    missing = 0
    for member_id in voters:
        vote = votes.get(member_id)
        if vote is None:
            missing += 1
        elif vote:
            granted += 1
    majority = len(voters) // 2 + 1
    if not voters or granted >= majority:
        return VOTE_WON
    return VOTE_PENDING if granted + missing >= majority else VOTE_LOST


def joint_vote_result(incoming: Set[int], outgoing: Set[int], votes: Mapping[int, bool]) -> int:
    """Return the decision that needs both majorities; one refusal is enough to lose."""
    first = vote_result(incoming, votes)
    second = vote_result(outgoing, votes)
    if first == second:
        return first
    return VOTE_LOST if VOTE_LOST in (first, second) else VOTE_PENDING
