"""More rows than memory may hold come back in order."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from etcdtw.storage.building.sorted_runs import BLOCK_ROWS, ROW_OVERHEAD, SortedRuns

ROWS = st.lists(st.tuples(st.binary(max_size=6), st.binary(max_size=3)), max_size=300)


@given(ROWS, st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_any_rows_come_back_in_order_however_many_runs_they_make(
    rows: list[tuple[bytes, bytes]], rows_per_run: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = SortedRuns(Path(folder) / "runs", rows_per_run * ROW_OVERHEAD)
        for row in rows:
            runs.add([row])
        assert list(runs) == sorted(rows)
        assert os.listdir(folder) == [], "a crash would leave the file behind"
        runs.close()


def test_a_run_of_many_blocks_is_read_whole(tmp_path: Path) -> None:
    count = 3 * BLOCK_ROWS + 5
    runs = SortedRuns(tmp_path / "runs", count * (ROW_OVERHEAD + 9) - 1)
    for i in reversed(range(count)):
        runs.add([(i.to_bytes(8, "big"), b"v")])
    runs.add([(bytes(9), b"")])
    found = [row[0] for row in runs]
    assert found == sorted([bytes(9), *[i.to_bytes(8, "big") for i in range(count)]])
    runs.close()
