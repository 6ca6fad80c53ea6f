"""HashKV of one member: which revisions are answered, when, and from where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from etcdtw.cluster.divergence import KeyHash
from etcdtw.mvcc.errors import CompactedError, FutureRevisionError
from etcdtw.node.duties.key_hashes import KeyHashes
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import put_of
from tests.support.node_rig import NodeRig


class Waiting:
    """The state of a member, with a compaction that is under way until it is let go on."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self.waits: list[Callable[[], None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def on_compacted(self, revision: int, done: Callable[[], None]) -> None:
        self.waits.append(done)


class Member:
    """As much of a node as the hashes need, with five puts."""

    def __init__(self) -> None:
        rig = NodeRig().start()
        self.store = rig.node.store
        self.clock = rig.node.clock
        self.storage = Waiting(rig.state)
        self.told: list[Any] = []
        for _ in range(5):
            self.store.apply_put(put_of(pb.PutRequest(key=b"k")))

    def compute(self, asked: int) -> list[Any]:
        storage: Any = self.storage
        KeyHashes(self.store, storage, self.clock.seconds).compute(asked, self.told.append)
        return self.told


def test_a_negative_revision_is_hashed_as_nothing_and_told_back() -> None:
    member = Member()
    (found,) = member.compute(-7)
    assert (found.hash_revision, found.revision) == (-7, 6)
    assert member.compute(1)[1].value == found.value


@pytest.mark.parametrize(("asked", "refusal"), [(7, FutureRevisionError), (3, CompactedError)])
def test_revisions_that_are_not_there_are_refused(asked: int, refusal: type[Exception]) -> None:
    member = Member()
    member.store.apply_compaction(pb.CompactionRequest(revision=4))
    member.compute(asked)
    for done in member.storage.waits:
        done()
    (found,) = member.told
    assert isinstance(found, refusal)


def test_the_hash_at_a_compaction_that_is_under_way_waits_for_it() -> None:
    member = Member()
    member.store.apply_compaction(pb.CompactionRequest(revision=4))
    assert member.compute(4) == []
    member.storage.compaction_hashes.add(4, -1, 77)
    member.storage.waits.pop()()
    assert member.told == [KeyHash(77, -1, 6, 4)]
    member.compute(5)
    assert member.storage.waits == [], "only at the revision of the compaction"


def test_the_hash_of_an_older_compaction_that_is_under_way_is_waited_for_too() -> None:
    member = Member()
    for revision in (4, 5):
        member.store.apply_compaction(pb.CompactionRequest(revision=revision))
    assert member.compute(4) == []
    member.storage.compaction_hashes.add(4, -1, 77)
    member.storage.waits.pop()()
    assert member.told == [KeyHash(77, -1, 6, 4)]


def test_what_a_later_compaction_takes_while_another_is_waited_for_is_refused() -> None:
    member = Member()
    member.store.apply_compaction(pb.CompactionRequest(revision=4))
    member.compute(4)
    member.store.apply_compaction(pb.CompactionRequest(revision=5))
    del member.storage.compaction_hashes._known[4]
    member.storage.waits.pop()()
    assert isinstance(member.told[0], CompactedError)
