"""Large values go to the state's writer while they are applied, not all at the generation's end."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.overlay import SEND_OCTETS_MAX


def test_large_changes_are_handed_over_before_they_are_many(tmp_path: Path) -> None:
    state = open_state(tmp_path / "state", pytest.fail, map_size=1 << 28)
    size = SEND_OCTETS_MAX // 4
    for i in range(9):
        key = b"k%d" % i
        state.put(i + 2, 0, key, b"\n\x02" + key + bytes(size), True)
        unsent = len(state._open.changes) - state._open.sent
        assert unsent * size < SEND_OCTETS_MAX
    assert state._open.sent >= 8
    state.close()
