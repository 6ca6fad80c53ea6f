"""What waits for the disk may raise: a reactor would log it, and the member must stop instead."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from etcdtw.storage.log.journal_codec import RECORD_SIZE_MAX
from etcdtw.storage.log.journal_open import begin_journal
from etcdtw.storage.log.journal_writer import INLINE_SIZE_MAX, JournalWriter
from etcdtw.storage.log.log import LmdbLog, open_log
from tests.storage.log.test_log import ThreadRig, entry, run

MAP_SIZE = 1 << 24


def broken() -> None:
    raise ZeroDivisionError("a defect")


@pytest.mark.parametrize("size", [INLINE_SIZE_MAX, RECORD_SIZE_MAX])
def test_callback_of_the_log_that_raises_stops_once_and_nothing_is_told_afterwards(
    tmp_path: Path, size: int
) -> None:
    rig = ThreadRig(tmp_path / "wal")
    rig.log.append(None, [entry(1, 1, bytes(size))], broken)
    rig.append(run(2, 2))
    rig.turn_until(lambda: rig.failures != [])
    assert rig.failures == [
        "what waited for the log failed: a defect; report this with the lines above"
    ]
    rig.append(run(3, 3))
    rig.log.close()
    rig.turn_all()
    assert rig.told == []
    assert len(rig.failures) == 1


@pytest.mark.parametrize("size", [INLINE_SIZE_MAX, RECORD_SIZE_MAX])
def test_thread_of_the_log_that_cannot_hand_back_stops_the_member(
    tmp_path: Path, size: int
) -> None:
    failures: queue.SimpleQueue[str] = queue.SimpleQueue()

    def unheard(call: Callable[[], None]) -> None:
        raise RuntimeError("no reactor")

    env, lock_fd = open_log(tmp_path / "wal", MAP_SIZE)
    journal = begin_journal(env, tmp_path / "wal", MAP_SIZE, bytes(8))
    writer = JournalWriter(
        env, journal, MAP_SIZE, time.monotonic, unheard, failures.put, settle_delay_s=1000.0
    )
    log = LmdbLog(env, writer, lock_fd=lock_fd)
    log.append(None, [entry(1, 1, bytes(size))], lambda: None)
    found = ""
    with suppress(queue.Empty):
        found = failures.get(timeout=5.0)
    assert found == "a thread of the log failed: no reactor; report this with the lines above"
    log.close()
