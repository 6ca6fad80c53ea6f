"""What a member's Raft core is told once, when it is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from etcdtw.raft.entry import ConfState
from etcdtw.raft.log import NO_LIMIT
from etcdtw.raft.message import NO_MEMBER, STORAGE_APPEND, STORAGE_APPLY
from etcdtw.raft.storage import Storage

READ_ONLY_SAFE: Final = 0  # a quorum confirms the leader for every batch of reads
# Trusts the quorum check instead: wrong under a paused process or a drifting clock.  No
# configuration of a server can select it.
READ_ONLY_LEASE_BASED: Final = 1


class Random(Protocol):
    """The one thing wanted of ``random.Random``."""

    def randrange(self, stop: int, /) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Config:
    """``election_ticks`` should be about ten times ``heartbeat_ticks``.

    ``applied`` is the last index that the state machine holds already, ``conf_state`` the
    configuration there; None takes storage's, which a state machine may be ahead of.
    Sizes are octets of entries; `NO_LIMIT` switches a bound off.
    ``max_committed_size_per_ready`` bounds what is handed out to apply and not yet
    reported back.
    """

    id: int
    election_ticks: int
    heartbeat_ticks: int
    storage: Storage
    random: Random
    applied: int = 0
    conf_state: ConfState | None = None
    max_size_per_message: int = 1024 * 1024
    max_inflight_messages: int = 512
    max_inflight_size: int = 0  # 0: not bounded
    max_uncommitted_size: int = NO_LIMIT
    max_committed_size_per_ready: int = NO_LIMIT
    check_quorum: bool = True
    pre_vote: bool = True
    async_storage_writes: bool = True
    step_down_on_removal: bool = True
    disable_conf_change_validation: bool = False
    disable_proposal_forwarding: bool = False
    read_only_option: int = READ_ONLY_SAFE

    def __post_init__(self) -> None:
        if self.id in (NO_MEMBER, STORAGE_APPEND, STORAGE_APPLY):
            raise ValueError(f"{self.id} is not a member id")
        if self.heartbeat_ticks <= 0:
            raise ValueError("heartbeat_ticks must be greater than 0")
        if self.election_ticks <= self.heartbeat_ticks:
            raise ValueError("election_ticks must be greater than heartbeat_ticks")
        if self.max_inflight_messages <= 0:
            raise ValueError("max_inflight_messages must be greater than 0")
        if self.max_inflight_size and self.max_inflight_size < self.max_size_per_message:
            raise ValueError("max_inflight_size must hold a message of max_size_per_message")
        if self.max_committed_size_per_ready <= 0:
            raise ValueError("max_committed_size_per_ready must be greater than 0")
        if self.read_only_option == READ_ONLY_LEASE_BASED and not self.check_quorum:
            raise ValueError("lease-based reads need check_quorum")
