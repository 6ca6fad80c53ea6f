"""One voter with asynchronous storage writes: the way a lone member runs."""

from __future__ import annotations

from random import Random

import pytest

from etcdtw.raft.confchange import bootstrap_log, decode_conf_change
from etcdtw.raft.config import Config
from etcdtw.raft.entry import ENTRY_NORMAL, ConfState, Entry, HardState, Snapshot
from etcdtw.raft.errors import ProposalDroppedError
from etcdtw.raft.memory_storage import MemoryStorage
from etcdtw.raft.message import STORAGE_APPEND, STORAGE_APPLY, Message
from etcdtw.raft.raw_node import RawNode
from etcdtw.raft.ready import ReadState
from etcdtw.raft.state import ROLE_LEADER


class LoneRig:
    """A member, its disk, and what the disk was asked but has not done yet."""

    def __init__(self, storage: MemoryStorage, applied: int = 0) -> None:
        self.storage = storage
        self.node = RawNode(
            Config(
                id=1,
                election_ticks=10,
                heartbeat_ticks=1,
                storage=storage,
                random=Random(1),
                applied=applied,
            )
        )
        self.appends: list[Message] = []
        self.applied: list[Entry] = []
        self.reads: list[ReadState] = []

    def collect(self) -> None:
        """Take one Ready; apply what it commits, leave the appends to `write`."""
        ready = self.node.ready()
        self.reads += ready.read_states
        for m in ready.messages:
            if m.to == STORAGE_APPEND:
                self.appends.append(m)
                continue
            assert m.to == STORAGE_APPLY
            self.applied += m.entries
            for entry in m.entries:
                if entry.type != ENTRY_NORMAL:
                    self.node.apply_conf_change(decode_conf_change(entry))
            for response in m.responses:
                self.node.step(response)

    def write(self) -> None:
        """Let the disk do everything it was asked."""
        for m in self.appends:
            self.storage.append(m.entries)
            if m.term:
                self.storage.set_hard_state(HardState(m.term, m.vote, m.commit))
        appends, self.appends = self.appends, []
        for m in appends:
            for response in m.responses:
                self.node.step(response)

    def settle(self) -> None:
        while self.node.has_ready():
            self.collect()
            self.write()

    def elect(self) -> None:
        self.node.campaign()
        self.settle()

    def applied_data(self) -> list[bytes]:
        return [entry.data for entry in self.applied if entry.data]


def lone_storage() -> MemoryStorage:
    storage = MemoryStorage()
    storage.apply_snapshot(Snapshot(2, 1, ConfState(voters=(1,))))
    storage.set_hard_state(HardState(term=1, vote=1, commit=2))
    return storage


@pytest.fixture
def rig() -> LoneRig:
    return LoneRig(lone_storage(), applied=2)


def test_a_lone_member_elects_itself_when_its_timeout_passes(rig: LoneRig) -> None:
    for _ in range(19):  # the longest of the random timeouts
        rig.node.tick()
    rig.settle()
    assert (rig.node.role, rig.node.lead, rig.node.term) == (ROLE_LEADER, 1, 2)
    assert rig.storage.hard_state.vote == 1


def test_its_own_vote_counts_only_once_it_is_durable(rig: LoneRig) -> None:
    rig.node.campaign()
    rig.collect()  # the pre-vote, which needs no state of ours
    rig.write()
    rig.collect()  # the vote itself
    assert not rig.node.is_leader
    rig.write()
    assert rig.storage.hard_state.vote == 1
    assert rig.node.is_leader


def test_etcd_14370_nothing_commits_before_its_own_append_is_durable(rig: LoneRig) -> None:
    rig.elect()
    rig.node.propose(b"a")
    commit_index = rig.node.commit_index
    rig.collect()
    assert (rig.node.commit_index, rig.applied_data()) == (commit_index, [])
    rig.write()
    assert rig.node.commit_index == commit_index + 1
    rig.collect()
    assert rig.applied_data() == [b"a"]


def test_a_batch_keeps_its_order_and_is_one_append(rig: LoneRig) -> None:
    rig.elect()
    payloads = [b"%d" % i for i in range(50)]
    rig.node.propose_batch(payloads)
    rig.collect()
    assert len(rig.appends) == 1
    assert [entry.data for entry in rig.appends[0].entries] == payloads
    rig.settle()
    rig.write()
    rig.settle()
    assert rig.applied_data() == payloads


def test_appends_may_be_written_behind_one_another(rig: LoneRig) -> None:
    rig.elect()
    for data in (b"a", b"b", b"c"):
        rig.node.propose(data)
        rig.collect()
    assert len(rig.appends) == 3
    rig.write()
    rig.settle()
    assert rig.applied_data() == [b"a", b"b", b"c"]


def test_a_proposal_without_a_leader_is_dropped(rig: LoneRig) -> None:
    with pytest.raises(ProposalDroppedError):
        rig.node.propose(b"a")
    with pytest.raises(ProposalDroppedError):
        rig.node.propose_batch([b"a", b"b"])


def test_what_was_appended_lately_is_applied_without_reading_storage() -> None:
    class Disk(MemoryStorage):
        def entries(self, low: int, high: int, size_max: int = 0) -> list[Entry]:
            raise AssertionError(f"storage was read: {low}..{high}")

    storage = Disk()
    storage.apply_snapshot(Snapshot(2, 1, ConfState(voters=(1,))))
    rig = LoneRig(storage, applied=2)
    rig.elect()
    for i in range(10):
        rig.node.propose_batch([b"%d" % i, b"x"])
        rig.settle()
    assert len(rig.applied_data()) == 20


def test_a_restart_goes_on_from_storage_and_applies_what_was_committed(rig: LoneRig) -> None:
    rig.elect()
    rig.node.propose_batch([b"a", b"b"])
    rig.settle()
    again = LoneRig(rig.storage, applied=3)
    assert (again.node.term, again.node.vote) == (2, 1)
    assert again.node.last_index == rig.node.last_index
    again.settle()
    assert again.applied_data() == [b"a", b"b"]
    again.elect()
    assert again.node.term == 3
    again.node.propose(b"c")
    again.settle()
    assert again.applied_data() == [b"a", b"b", b"c"]


def test_a_restart_whose_state_is_ahead_of_the_persisted_commit_takes_the_state(
    rig: LoneRig,
) -> None:
    rig.elect()
    rig.node.propose_batch([b"a", b"b"])
    rig.settle()
    rig.storage.set_hard_state(HardState(term=2, vote=1, commit=2))  # it is not flushed alone
    again = LoneRig(rig.storage, applied=rig.node.applied_index)
    assert again.node.commit_index == rig.node.applied_index
    again.elect()
    assert again.applied_data() == []


def test_a_bootstrapped_log_makes_its_member_a_voter_once_applied() -> None:
    storage = MemoryStorage()
    hard_state, entries = bootstrap_log([(1, b"about me")])
    storage.set_hard_state(hard_state)
    storage.append(entries)
    rig = LoneRig(storage)
    rig.node.campaign()
    assert not rig.node.has_ready() or not rig.node.is_leader
    rig.settle()
    assert decode_conf_change(rig.applied[0]).context == b"about me"
    assert rig.node.configuration.voters == {1}
    rig.elect()
    assert rig.node.is_leader


def test_a_lone_leader_answers_a_read_at_once(rig: LoneRig) -> None:
    rig.elect()
    rig.node.read_index(b"ask")
    rig.settle()
    assert [(read.index, read.context) for read in rig.reads] == [(rig.node.commit_index, b"ask")]


def test_etcd_7331_a_read_waits_for_the_first_commit_of_the_term(rig: LoneRig) -> None:
    rig.node.campaign()
    rig.collect()
    rig.write()
    rig.collect()
    rig.write()
    assert rig.node.is_leader
    rig.node.read_index(b"early")
    rig.collect()
    assert rig.reads == []
    rig.write()  # the empty entry that begins the term
    rig.settle()
    assert [read.context for read in rig.reads] == [b"early"]
    assert rig.reads[0].index == rig.node.commit_index
