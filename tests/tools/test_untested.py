"""Which modules count as tested, and that each other one has its reason."""

from __future__ import annotations

from pathlib import Path

from tools.untested import complaints, excused, imported, modules


def test_modules_are_all_but_the_sentences_of_packages(tmp_path: Path) -> None:
    (tmp_path / "house" / "room").mkdir(parents=True)
    for name in (
        "house/__init__.py",
        "house/door.py",
        "house/room/__init__.py",
        "house/room/bed.py",
    ):
        (tmp_path / name).touch()
    assert modules(tmp_path, "house") == {"house.door", "house.room.bed"}


def test_every_form_of_import_counts() -> None:
    found = imported(
        ["import house.door", "from house.room import bed", "from house.roof import Tile"]
    )
    assert {"house.door", "house.room.bed", "house.roof"} <= found


def test_a_module_needs_a_test_or_a_reason_and_not_both() -> None:
    reasons = excused({"room": "seen from the door: bed chair"}, "house")
    assert reasons["house.room.bed"] == "seen from the door"
    found = list(complaints({"house.room.bed", "house.roof"}, reasons))
    assert [line.partition(":")[0] for line in found] == ["house.roof", "house.room.chair"]
