"""A member tells its cluster its name and where its clients go, until the cluster knows.

Not before it is a member itself: real members end when a stranger publishes.  And while the
cluster's version is open, which tells the form to write, not at once: a leader settles it
soon, or shows by its own entries that it is an old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from etcdtw.apply.members import Members
from etcdtw.apply.own_entries import attributes_entry
from etcdtw.node.own_proposals import OwnProposals
from etcdtw.node.standing import Standing

RETRY_MS: Final = 1_000
UNDECIDED_MS: Final = 2_000
"""How long a leader is given to decide; with a founder down it cannot."""


class Publication:
    """The attributes of one member on their way."""

    def __init__(
        self,
        standing: Standing,
        members: Members,
        own: OwnProposals,
        name: str,
        client_urls: Sequence[str],
    ) -> None:
        self._standing = standing
        self._members = members
        self._own = own
        self._name = name
        self._client_urls = tuple(client_urls)
        self._due_ms = 0
        self._led_since_ms: int | None = None

    def look(self, now_ms: int) -> bool:
        """Return whether the cluster knows; if not, publish when it is time.

        To be called again and again.
        """
        standing, members = self._standing, self._members
        member = members.member(standing.member_id)
        if member is None:
            return False
        if (member.name, member.client_urls) == (self._name, self._client_urls):
            return True
        if not standing.leader_id:
            self._led_since_ms = None
            return False
        if self._led_since_ms is None:
            self._led_since_ms = now_ms
        if not (
            members.is_version_decided
            or members.has_old_members
            or members.has_new_members
            or now_ms - self._led_since_ms >= UNDECIDED_MS
        ):
            return False
        if now_ms >= self._due_ms:
            self._due_ms = now_ms + RETRY_MS
            line = members.writing_line
            self._own.propose_octets(
                lambda number: attributes_entry(
                    line, number, standing.member_id, self._name, self._client_urls
                )
            )
        return False
