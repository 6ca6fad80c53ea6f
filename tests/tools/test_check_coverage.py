"""Floors of coverage: what counts, and at which percentage."""

from __future__ import annotations

import pytest

from tools.check_coverage import by_room, complaints


def summary(lines: int, covered: int, branches: int = 0, taken: int = 0) -> dict[str, object]:
    counts = ("num_statements", "covered_lines", "num_branches", "covered_branches")
    return {"summary": dict(zip(counts, (lines, covered, branches, taken), strict=True))}


def test_lines_and_branches_of_a_rooms_files_count_together() -> None:
    files = {
        "etcdtw/house/one.py": summary(10, 10),
        "etcdtw/house/inner/two.py": summary(6, 0, 4, 0),
        "etcdtw/empty/__init__.py": summary(0, 0),
        "etcdtw/__init__.py": summary(1, 0),
        "tests/test_one.py": summary(10, 0),
    }
    assert by_room(files) == {"house": 50.0}


@pytest.mark.parametrize(("percent", "is_enough"), [(90.0, True), (89.9, False)])
def test_a_room_may_be_at_its_floor_and_not_below(percent: float, is_enough: bool) -> None:
    assert (list(complaints({"house": percent}, {"house": 90.0})) == []) is is_enough


def test_every_room_has_a_floor_and_every_floor_a_room() -> None:
    assert list(complaints({"new": 99.0}, {"old": 9.0})) == [
        "new: has no floor; set one in tools/check_coverage.py",
        "old: is not there any more",
    ]
