"""How the records show themselves: an operator reads these in a crash report."""

from __future__ import annotations

from etcdtw.raft.entry import ConfState, Entry, HardState, Snapshot
from etcdtw.raft.message import MSG_APP, Message
from etcdtw.raft.ready import ReadState, SoftState


def test_records_name_their_fields() -> None:
    assert repr(Entry(2, 7, 0, b"abc")) == "Entry(2/7 type=0 3 octets)"
    assert repr(HardState(1, 2, 3)) == "HardState(term=1, vote=2, commit=3)"
    assert repr(Snapshot(5, 2)).startswith("Snapshot(index=5, term=2, ConfState(")
    assert repr(SoftState(0xA, 2)) == "SoftState(lead=a, role=2)"
    assert repr(ReadState(4, b"x")) == "ReadState(index=4, b'x')"
    m = Message(MSG_APP, to=2, from_id=1, term=3, log_term=2, index=9, commit=8, reject=True)
    assert repr(m) == "Message(MsgApp 1->2 term=3 log=2/9 commit=8 0 entries reject)"


def test_records_are_equal_by_their_fields_and_to_nothing_else() -> None:
    assert Entry(1, 2, 0, b"a") == Entry(1, 2, 0, b"a") != Entry(1, 2, 0, b"b")
    assert HardState(1, 2, 3) == HardState(1, 2, 3) != (1, 2, 3)
    assert ConfState((1,), auto_leave=True) == ConfState((1,), auto_leave=True) != ConfState((1,))
