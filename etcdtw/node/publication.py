"""A member tells its cluster its name and where its clients go, until the cluster knows.

Not before it is a member itself: real members end when a stranger publishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from etcdtw.apply.own_entries import attributes_entry

if TYPE_CHECKING:
    from etcdtw.node.node import Node

RETRY_MS: Final = 1_000


class Publication:
    """The attributes of one member on their way."""

    def __init__(self, node: Node, name: str, client_urls: Sequence[str]) -> None:
        self._node = node
        self._name = name
        self._client_urls = tuple(client_urls)
        self._due_ms = 0

    def look(self, now_ms: int) -> bool:
        """Return whether the cluster knows; if not, publish when it is time.

        To be called again and again.
        """
        node = self._node
        member = node.members.member(node.member_id)
        if member is None:
            return False
        if (member.name, member.client_urls) == (self._name, self._client_urls):
            return True
        if node.leader_id and now_ms >= self._due_ms:
            self._due_ms = now_ms + RETRY_MS
            line = node.members.line
            node.propose_octets(
                lambda number: attributes_entry(
                    line, number, node.member_id, self._name, self._client_urls
                )
            )
        return False
