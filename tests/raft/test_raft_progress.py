"""Flow control of one follower: the window and the three states."""

from __future__ import annotations

import pytest

from etcdtw.raft.inflights import Inflights
from etcdtw.raft.progress import PROGRESS_PROBE, PROGRESS_REPLICATE, Progress


def progress_at(match_index: int, next_index: int, window: int = 3) -> Progress:
    return Progress(match_index, next_index, Inflights(window))


def test_the_window_is_full_at_its_count() -> None:
    window = Inflights(2)
    window.add(5, 10)
    assert not window.is_full()
    window.add(7, 10)
    assert window.is_full()
    with pytest.raises(AssertionError):
        window.add(8, 1)


def test_the_message_that_crosses_the_octet_bound_is_the_last() -> None:
    window = Inflights(10, size_max=100)
    window.add(1, 99)
    assert not window.is_full()
    window.add(2, 1)
    assert window.is_full()
    window.free_to(1)
    assert not window.is_full()


def test_an_acknowledgement_frees_all_messages_up_to_it() -> None:
    window = Inflights(4)
    for index in (3, 6, 9):
        window.add(index, 1)
    window.free_to(2)
    assert len(window) == 3
    window.free_to(7)
    assert len(window) == 1
    window.reset()
    assert len(window) == 0


def test_a_probe_sends_one_append_at_a_time() -> None:
    progress = progress_at(0, 5)
    progress.entries_sent(0, 0)
    assert not progress.is_paused()
    progress.entries_sent(2, 10)
    assert progress.is_paused()
    assert progress.next_index == 5


def test_replicating_moves_next_on_and_pauses_when_the_window_is_full() -> None:
    progress = progress_at(0, 1, window=2)
    progress.become_replicate()
    progress.entries_sent(2, 10)
    assert (progress.next_index, progress.is_paused()) == (3, False)
    progress.entries_sent(1, 10)
    assert (progress.next_index, progress.is_paused()) == (4, True)


def test_old_acknowledgements_and_refusals_change_nothing() -> None:
    progress = progress_at(4, 8)
    assert not progress.acknowledge(4)
    assert not progress.reject(5, 3)  # the probe under way asks about 7
    progress.become_replicate()
    assert not progress.reject(4, 3)
    assert progress.reject(6, 5)
    assert progress.next_index == 5


def test_a_refused_probe_goes_to_the_hint_but_never_before_the_match() -> None:
    progress = progress_at(0, 10)
    assert progress.reject(9, 4)
    assert progress.next_index == 5
    progress = progress_at(6, 10)
    assert progress.reject(9, 2)
    assert progress.next_index == 7
    progress = progress_at(0, 2)
    assert progress.reject(1, 9)
    assert progress.next_index == 1


def test_a_snapshot_pauses_and_its_end_probes_behind_it() -> None:
    progress = progress_at(2, 3)
    progress.become_snapshot(9)
    assert (progress.is_paused(), progress.next_index, progress.pending_snapshot) == (True, 10, 9)
    progress.become_probe()
    assert (progress.state, progress.next_index) == (PROGRESS_PROBE, 10)
    progress.become_snapshot(20)
    progress.pending_snapshot = 0  # reported lost
    progress.become_probe()
    assert progress.next_index == 3


def test_a_commit_index_is_worth_telling_only_if_it_can_be_learned() -> None:
    progress = progress_at(5, 6)
    progress.become_replicate()
    progress.sent_commit = 4
    assert progress.can_bump_commit(5)
    assert not progress.can_bump_commit(4)
    progress.sent_commit = 5
    assert not progress.can_bump_commit(9)  # it has been told all it has entries for


def test_progress_shows_what_the_operator_asks_for() -> None:
    progress = progress_at(3, 4, window=1)
    progress.become_replicate()
    progress.entries_sent(1, 1)
    progress.is_learner = True
    text = "StateReplicate match=3 next=5 learner paused inactive inflight=1[full]"
    assert repr(progress) == text
    assert progress.state == PROGRESS_REPLICATE
