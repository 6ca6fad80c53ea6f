"""May the membership change now?  What is checked before a change is proposed.

None of this counts at apply, where only the membership's own rules do (`membership`).  Source:
etcd's strict reconfiguration checks, as of 3.7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from etcdtw.cluster.member import Member

CONNECTED_MIN_MS: Final = 5_000
"""How long a member must have been connected to count as healthy (etcd's number)."""
LEARNER_READY_PERCENT: Final = 90
"""How much of the leader's log a learner must hold before it may vote (etcd's number)."""

ConnectedSince = Callable[[int], "int | None"]
"""When a member was connected to, on the clock of ``now_ms``; None: it is not."""


def quorum(voters: int) -> int:
    """Return how many of so many voters decide."""
    return voters // 2 + 1


def can_add_voter(voters: Sequence[Member]) -> bool:
    """Tell whether enough voters have started for one that has not.

    A lone voter may always be joined: so data is restored to more than one member.
    """
    started = _started(voters)
    if started == len(voters) == 1:
        return True
    return started >= quorum(len(voters) + 1)


def can_remove_voter(voters: Sequence[Member], member_id: int) -> bool:
    """Tell whether enough of the voters that remain have started."""
    rest = [one for one in voters if one.member_id != member_id]
    return _started(rest) >= quorum(len(rest))


def can_promote(voters: Sequence[Member]) -> bool:
    """Tell whether enough voters have started, the promoted learner counting as one."""
    return _started(voters) + 1 >= quorum(len(voters) + 1)


def quorum_is_connected(
    voters: Sequence[Member], self_id: int, connected_since: ConnectedSince, now_ms: int
) -> bool:
    """Tell whether enough voters are healthy that one more, not started yet, may count.

    A lone voter is its own quorum.
    """
    if len(voters) == 1:
        return True
    healthy = count_connected(voters, self_id, connected_since, now_ms)
    return healthy >= quorum(len(voters) + 1)


def quorum_survives_removal(
    voters: Sequence[Member],
    member_id: int,
    self_id: int,
    connected_since: ConnectedSince,
    now_ms: int,
) -> bool:
    """Tell whether the others are a healthy quorum without ``member_id``.

    A member that is down takes no part in the quorum that is at work: it may go.
    """
    if member_id != self_id and connected_since(member_id) is None:
        return True
    healthy = count_connected(voters, self_id, connected_since, now_ms)
    return healthy - 1 >= 1 + (len(voters) - 1) // 2


def count_connected(
    voters: Sequence[Member], self_id: int, connected_since: ConnectedSince, now_ms: int
) -> int:
    """Return how many voters have been connected for `CONNECTED_MIN_MS`; oneself always is."""
    count = 0
    for one in voters:
        if one.member_id == self_id:
            count += 1
            continue
        since_ms = connected_since(one.member_id)
        count += since_ms is not None and now_ms - since_ms > CONNECTED_MIN_MS
    return count


def learner_is_ready(learner_match: int, leader_match: int) -> bool:
    """Tell whether a learner holds enough of the leader's log."""
    return learner_match * 100 >= leader_match * LEARNER_READY_PERCENT


def _started(members: Sequence[Member]) -> int:
    return sum(one.is_started for one in members)
