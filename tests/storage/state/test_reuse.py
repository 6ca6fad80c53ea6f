"""What of the state's file can be used again: asked of the writer, and used up by commits."""

from __future__ import annotations

from pathlib import Path

from etcdtw.storage.disk.page_format import PAGE
from etcdtw.storage.disk.room import state_need
from etcdtw.storage.state.reuse import Reuse
from etcdtw.storage.writer.worker import MEASURE
from tests.storage.state.test_state import Rig

MIB = 1 << 20
IN_USE = 100 * MIB


def test_the_writer_is_asked_once_at_a_time() -> None:
    asked: list[tuple[str, int]] = []
    reuse = Reuse(asked.append)
    assert [reuse.octets(9), reuse.octets(9)] == [0, 0]
    assert asked == [(MEASURE, 9)]
    reuse.told(9, 5 * MIB)
    assert reuse.octets(9) == 5 * MIB
    assert reuse.octets(9) == 5 * MIB
    assert len(asked) == 2
    assert reuse.octets(10) == 0, "of rows of ten pages nobody knows"
    assert reuse.octets(8) == 5 * MIB


def test_what_is_committed_since_may_have_used_it_up() -> None:
    reuse = Reuse(lambda message: None)
    reuse.told(9, 5 * MIB)
    reuse.committed(MIB, 10, IN_USE)
    assert reuse.octets(9) == 5 * MIB - state_need(MIB, 10, IN_USE)
    reuse.committed(2 * MIB, 10, IN_USE)
    assert reuse.octets(9) == 0


def test_what_a_compaction_freed_can_be_used_again_and_is_used_first(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "member" / "state")
    row = 1 + MIB // PAGE
    assert rig.state.reuse.octets(row) == 0
    for _ in range(10):
        rig.put(b"k", MIB)
    rig.state.schedule_compaction(rig.main)
    for number in range(3):
        rig.put(b"other", number)
        rig.flush()
    rig.state.reuse.octets(row)
    before = rig.state.reuse.octets(row)
    assert 7 * MIB < before < 12 * MIB
    size = rig.state.size_allocated
    rig.put(b"l", MIB)
    rig.flush()
    assert rig.state.reuse.octets(row) < before - MIB, "nobody was asked since"
    rig.state.reuse.octets(row)
    assert before - 2 * MIB < rig.state.reuse.octets(row) < before
    assert rig.state.size_allocated == size
    rig.state.close()
