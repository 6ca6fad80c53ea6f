"""Raft messages: their types, their fields, and which of them may cross the network.

Field names and type numbers are those of etcd's ``raftpb.Message``.  Knows no encoding.
"""

from __future__ import annotations

from typing import Final

from etcdtw.raft.entry import Entry, Snapshot

NO_MEMBER: Final = 0  # "nobody": no vote cast, no leader known
# Messages to and from the disk carry these in place of a member id.
STORAGE_APPEND: Final = 2**64 - 1
STORAGE_APPLY: Final = 2**64 - 2

MSG_HUP: Final = 0
MSG_BEAT: Final = 1
MSG_PROP: Final = 2
MSG_APP: Final = 3
MSG_APP_RESP: Final = 4
MSG_VOTE: Final = 5
MSG_VOTE_RESP: Final = 6
MSG_SNAP: Final = 7
MSG_HEARTBEAT: Final = 8
MSG_HEARTBEAT_RESP: Final = 9
MSG_UNREACHABLE: Final = 10
MSG_SNAP_STATUS: Final = 11
MSG_CHECK_QUORUM: Final = 12
MSG_TRANSFER_LEADER: Final = 13
MSG_TIMEOUT_NOW: Final = 14
MSG_READ_INDEX: Final = 15
MSG_READ_INDEX_RESP: Final = 16
MSG_PRE_VOTE: Final = 17
MSG_PRE_VOTE_RESP: Final = 18
MSG_STORAGE_APPEND: Final = 19
MSG_STORAGE_APPEND_RESP: Final = 20
MSG_STORAGE_APPLY: Final = 21
MSG_STORAGE_APPLY_RESP: Final = 22
MSG_FORGET_LEADER: Final = 23

MESSAGE_NAMES: Final = (
    "MsgHup",
    "MsgBeat",
    "MsgProp",
    "MsgApp",
    "MsgAppResp",
    "MsgVote",
    "MsgVoteResp",
    "MsgSnap",
    "MsgHeartbeat",
    "MsgHeartbeatResp",
    "MsgUnreachable",
    "MsgSnapStatus",
    "MsgCheckQuorum",
    "MsgTransferLeader",
    "MsgTimeoutNow",
    "MsgReadIndex",
    "MsgReadIndexResp",
    "MsgPreVote",
    "MsgPreVoteResp",
    "MsgStorageAppend",
    "MsgStorageAppendResp",
    "MsgStorageApply",
    "MsgStorageApplyResp",
    "MsgForgetLeader",
)

# A vote request with this context goes past the lease of CheckQuorum (thesis 3.10).
CONTEXT_TRANSFER: Final = b"CampaignTransfer"

# Made by a member for itself or by its disk; never accepted from a peer.
LOCAL_TYPES: Final = frozenset(
    (
        MSG_HUP,
        MSG_BEAT,
        MSG_UNREACHABLE,
        MSG_SNAP_STATUS,
        MSG_CHECK_QUORUM,
        MSG_STORAGE_APPEND,
        MSG_STORAGE_APPEND_RESP,
        MSG_STORAGE_APPLY,
        MSG_STORAGE_APPLY_RESP,
    )
)
RESPONSE_TYPES: Final = frozenset(
    (
        MSG_APP_RESP,
        MSG_VOTE_RESP,
        MSG_HEARTBEAT_RESP,
        MSG_UNREACHABLE,
        MSG_READ_INDEX_RESP,
        MSG_PRE_VOTE_RESP,
    )
)
# What these promise depends on state that must be durable first (thesis 3.8).
AFTER_APPEND_TYPES: Final = frozenset((MSG_APP_RESP, MSG_VOTE_RESP, MSG_PRE_VOTE_RESP))
VOTE_TYPES: Final = frozenset((MSG_VOTE, MSG_VOTE_RESP, MSG_PRE_VOTE, MSG_PRE_VOTE_RESP))


class Message:
    """One message between members, or between a member and its disk.

    ``term == 0`` marks a local or forwarded message.  ``index`` and ``log_term`` name a log
    position; their meaning belongs to the type.  ``responses`` are stepped or sent by
    whoever carries out a storage message, after it is done.
    """

    __slots__ = (
        "commit",
        "context",
        "entries",
        "from_id",
        "index",
        "log_term",
        "reject",
        "reject_hint",
        "responses",
        "snapshot",
        "term",
        "to",
        "type",
        "vote",
    )

    def __init__(
        self,
        type: int,
        *,
        to: int = NO_MEMBER,
        from_id: int = NO_MEMBER,
        term: int = 0,
        log_term: int = 0,
        index: int = 0,
        entries: list[Entry] | None = None,
        commit: int = 0,
        snapshot: Snapshot | None = None,
        reject: bool = False,
        reject_hint: int = 0,
        context: bytes = b"",
        vote: int = NO_MEMBER,
        responses: list[Message] | None = None,
    ) -> None:
        self.type = type
        self.to = to
        self.from_id = from_id
        self.term = term
        self.log_term = log_term
        self.index = index
        self.entries: list[Entry] = entries if entries is not None else []
        self.commit = commit
        self.snapshot = snapshot
        self.reject = reject
        self.reject_hint = reject_hint
        self.context = context
        self.vote = vote
        self.responses: list[Message] = responses if responses is not None else []

    def __repr__(self) -> str:
        return (
            f"Message({MESSAGE_NAMES[self.type]} {self.from_id:x}->{self.to:x} "
            f"term={self.term} log={self.log_term}/{self.index} commit={self.commit} "
            f"{len(self.entries)} entries{' reject' if self.reject else ''})"
        )
