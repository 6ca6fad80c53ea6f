"""Which messages of peers may reach Raft: for whom they are, from whom, and what they hold.

Octets are `codec`; what a message means to its receiver is decided in `raft`.
"""

from __future__ import annotations

from typing import Final, Protocol

from etcdtw.raft.message import (
    LOCAL_TYPES,
    MSG_APP,
    MSG_PROP,
    MSG_READ_INDEX,
    MSG_SNAP,
    MSG_TRANSFER_LEADER,
    Message,
)

FORWARDED_TYPES: Final = frozenset((MSG_PROP, MSG_READ_INDEX, MSG_TRANSFER_LEADER))
"""A follower passes these on as they came, so they may name another member as their sender."""
TERMLESS_TYPES: Final = frozenset((MSG_PROP, MSG_READ_INDEX))
"""These are asked for before the asker's term matters; everything else carries one."""


class KnowsRemoved(Protocol):
    """Whom the member that receives must not hear any more."""

    def is_removed(self, member_id: int) -> bool:
        """Tell whether ``member_id`` was removed from the cluster, in our applied state."""
        ...


def refusal(m: Message, local_id: int, sender_id: int | None, receiver: KnowsRemoved) -> str | None:
    """Return why ``m`` must not reach Raft, in etcd's words where it has them; None: it may.

    ``sender_id``: who is at the other end of the connection; None: it does not say.
    """
    if m.to != local_id:
        return f"cannot process message to mismatch member {m.to:x}"
    if receiver.is_removed(m.from_id):
        return "cannot process message from removed member"
    if sender_id is not None and m.from_id != sender_id and m.type not in FORWARDED_TYPES:
        return f"cannot process message of {m.from_id:x} from {sender_id:x}"
    return None


def may_travel(m: Message) -> bool:
    """Tell whether a peer can have sent this alone; what it cannot is ignored, as in etcd.

    A MsgSnap comes with a database, by a way of its own: without one it must not be stepped.
    """
    return (
        m.type not in LOCAL_TYPES
        and m.type != MSG_SNAP
        and (m.term > 0 or m.type in TERMLESS_TYPES)
        and _has_its_entries(m)
    )


def _has_its_entries(m: Message) -> bool:
    """Tell whether the entries can be those of such a message: Raft takes them as they are."""
    if m.type == MSG_APP:
        return all([entry.index == index for index, entry in enumerate(m.entries, m.index + 1)])
    return bool(m.entries) or m.type not in TERMLESS_TYPES
