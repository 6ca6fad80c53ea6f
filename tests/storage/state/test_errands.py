"""Hashes and defragmentations that wait for the writer: how many, and what an adoption does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from etcdtw.storage.state.errands import (
    ERRANDS_MAX,
    ErrandError,
    Errands,
    SupersededError,
    TooManyErrandsError,
)
from etcdtw.storage.state.open import open_state
from etcdtw.storage.writer.feed import Message


class ErrandsRig:
    """Errands whose flushes and answers the test decides."""

    def __init__(self) -> None:
        self.flushes: list[Callable[[], None]] = []
        self.sent: list[Message] = []
        self.told: list[int | ErrandError] = []
        self.errors: list[str] = []
        self.errands = Errands(self.flushes.append, self.sent.append)

    def ask(self) -> None:
        self.errands.hash(self.told.append, "hash_kv", 7, 5)

    def flush(self) -> None:
        flushes, self.flushes[:] = self.flushes[:], []
        for done in flushes:
            done()


def test_so_many_errands_wait_and_no_more() -> None:
    rig = ErrandsRig()
    for _ in range(ERRANDS_MAX - 1):
        rig.ask()
    rig.errands.defragment(rig.errors.append)
    assert (rig.told, rig.errors) == ([], [])
    rig.ask()
    rig.errands.defragment(rig.errors.append)
    assert [type(one) for one in rig.told] == [TooManyErrandsError]
    assert rig.errors == ["64 hashes and defragmentations wait already; try again later"]
    rig.flush()
    assert len(rig.sent) == ERRANDS_MAX
    rig.errands.hashed(1, 99)
    rig.ask()
    assert rig.told[1:] == [99]
    rig.flush()
    assert rig.sent[-1] == ("hash_kv", ERRANDS_MAX + 1, 7, 5)


def test_adoption_answers_every_hash_at_once_and_none_is_begun_until_it_is_over() -> None:
    rig = ErrandsRig()
    rig.ask()
    rig.flush()
    rig.ask()
    rig.errands.defragment(rig.errors.append)
    rig.errands.supersede()
    rig.ask()
    assert [type(one) for one in rig.told] == [SupersededError] * 3
    rig.flush()
    assert rig.sent == [("hash_kv", 1, 7, 5), ("defragment", 3)]
    rig.errands.hashed(1, 99)  # had left before the writer heard of it
    assert len(rig.told) == 3
    rig.errands.defragmented(3, "")
    rig.errands.go_on()
    rig.ask()
    rig.flush()
    rig.errands.hashed(4, 98)
    assert (rig.told[3:], rig.errors) == ([98], [""])


class SilentWriter:
    """Takes messages and answers nothing."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def start(self, receive: Callable[[Message], None]) -> None:
        pass

    def send(self, message: Message) -> None:
        self.sent.append(message[0])

    def soon(self, then: Callable[[], None]) -> None:
        """No reactor."""

    def close(self) -> None:
        pass


def test_state_that_adopts_another_gives_up_its_hashes(tmp_path: Path) -> None:
    writer = SilentWriter()
    state = open_state(
        tmp_path / "state", pytest.fail, lambda path, size, fd: writer, map_size=1 << 24
    )
    told: list[object] = []
    state.hash_kv(1, 0, told.append)
    state.set_applied(1, 1)
    state.hash_all(told.append)  # waits for a flush
    state.adopt(9, lambda: None)
    assert [type(one) for one in told] == [SupersededError] * 2
    assert writer.sent == ["hash_kv", "commit", "adopt"]
    state.close()
