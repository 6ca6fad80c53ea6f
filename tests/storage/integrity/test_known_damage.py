"""Damage of a state, once it is known: mended or proved, who hears, and how much waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etcdtw.storage.integrity.check import MARK
from etcdtw.storage.integrity.damage import MENDS_MAX, StateDamage
from etcdtw.storage.integrity.sweeper import DAMAGED, MEND, MENDED, SWEPT
from etcdtw.storage.rows.codec import TABLE_CURRENT, TABLE_KEY
from etcdtw.storage.rows.seal import PageDamageError, StateDamageError


class Rig:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.sent: list[tuple[Any, ...]] = []
        self.heard: list[str] = []
        self.damage = StateDamage(path, self.sent.append, lambda: self.heard.append("frozen"))
        self.damage.listen(lambda: self.heard.append(self.damage.proved))

    @property
    def mark(self) -> str:
        return (self.path / MARK).read_text() if (self.path / MARK).exists() else ""


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def row(name: bytes = b"k", table: bytes = TABLE_CURRENT) -> StateDamageError:
    return StateDamageError(table, name)


def test_a_row_that_history_has_is_mended_once_however_often_it_is_read(rig: Rig) -> None:
    rig.damage.hear(row())
    rig.damage.hear(row())
    assert rig.sent == [(MEND, b"k")]
    rig.damage.receive((MENDED, b"k", ""))
    rig.damage.hear(row())
    assert rig.sent == [(MEND, b"k")] * 2, "damaged anew"
    assert (rig.damage.rows_total, rig.damage.mended_total) == (3, 1)
    assert (rig.damage.proved, rig.heard, rig.mark) == ("", [], "")


def test_as_many_rows_as_the_bound_wait_to_be_mended_and_no_more(rig: Rig) -> None:
    for i in range(MENDS_MAX + 1):
        rig.damage.hear(row(b"%d" % i))
    assert len(rig.sent) == MENDS_MAX
    rig.damage.receive((MENDED, b"0", ""))
    rig.damage.hear(row(b"%d" % MENDS_MAX))
    assert rig.sent[-1] == (MEND, b"%d" % MENDS_MAX)


@pytest.mark.parametrize(
    "error",
    [row(table=TABLE_KEY), PageDamageError(TABLE_CURRENT, b"k", OSError("a page is gone"))],
)
def test_anything_else_proves_damage_and_who_listens_hears_it_once(
    rig: Rig, error: StateDamageError
) -> None:
    rig.damage.hear(error)
    assert rig.sent == []
    assert rig.heard == ["frozen", str(error)]
    assert rig.mark == rig.damage.proved == str(error)
    rig.damage.prove("another reason")
    assert rig.heard == ["frozen", str(error)]


def test_what_cannot_be_mended_or_a_sweep_finds_is_proved(tmp_path: Path) -> None:
    for i, message in enumerate(((MENDED, b"k", "no history"), (DAMAGED, TABLE_KEY, b"k", "bad"))):
        (tmp_path / str(i)).mkdir()
        rig = Rig(tmp_path / str(i))
        rig.damage.receive(message)
        assert str(message[-1]) in rig.damage.proved
        assert rig.mark == rig.damage.proved
        assert rig.damage.mended_total == 0
        rig.damage.receive((SWEPT,))
        assert rig.damage.sweeps_total == 1


def test_another_state_is_trusted_again(rig: Rig) -> None:
    rig.damage.hear(row(b"waits"))
    rig.damage.prove("why")
    rig.damage.forget()
    assert (rig.damage.proved, rig.mark) == ("", "")
    rig.damage.hear(row(b"waits"))
    assert rig.sent == [(MEND, b"waits")] * 2, "what waited was of the one before"


def test_a_disk_that_takes_no_mark_keeps_nobody_from_hearing(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "gone")
    rig.damage.prove("why")
    assert rig.heard == ["frozen", "why"]
    rig.damage.forget()
    assert rig.damage.proved == ""
