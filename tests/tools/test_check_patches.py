"""What counts as a patch."""

from __future__ import annotations

import pytest

from tools.check_patches import patches


@pytest.mark.parametrize(
    "line",
    [
        "monkeypatch.setattr(module, 'BOUND', 3)",
        "patched.setattr('etcdtw.house.BOUND', 3)",
        "monkeypatch.delattr(module, 'BOUND')",
        "setattr(rig.stats, bound, 3)",
        "from unittest import mock",
        "from unittest.mock import patch",
        "import unittest.mock",
        "rig.log.term = damaged  # type: ignore[method-assign]",
        "rig.log.term = None  # type: ignore[assignment, method-assign]",
        "rig.log.term = None  # type:ignore[method-assign,assignment]  # for now",
    ],
)
def test_a_patch_is_found_with_its_line(line: str) -> None:
    assert [number for number, _ in patches(f"\n{line}\n")] == [2]


@pytest.mark.parametrize(
    "line",
    [
        "monkeypatch.setenv('A', 'b')",
        "setattr(request, name, 1)  # protobuf",
        "rig.stats.bound = 3",
        "from tests.mocking import bird",
        "rig.log.term = 3  # type: ignore[assignment]",
        "line = 'a.b = c  # type: ignore[method-assign]'",
    ],
)
def test_what_is_no_patch_is_left_alone(line: str) -> None:
    assert list(patches(line)) == []
