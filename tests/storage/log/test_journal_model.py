"""The journaled log against a naive one: any mix of writes, settling, crashes and restarts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcdtw.raft.entry import Entry, HardState, Snapshot
from etcdtw.storage.log.journal_codec import PAGE
from tests.support.journal_rig import JournalRig, all_of, read_log, write_image

SECTOR = 512
SEGMENT_SIZE = 8 * PAGE
SIZES = (0, 1, 10, 300, 300, 300, PAGE - 100, PAGE, 3 * PAGE, 7 * PAGE, 9 * PAGE)

Model = tuple[list[Entry], HardState]


class ModelRun:
    """A log and the list that it should be."""

    def __init__(self, path: Path, random: Random) -> None:
        self.path = path
        self.random = random
        self.lives = 0
        self.entries: list[Entry] = []  # all ever kept, from index 1 on
        self.first = 1
        self.hard_state = HardState()
        self.rig = JournalRig(path / "0", SEGMENT_SIZE, tail_size_max=2000)

    def step(self) -> None:
        choice = self.random.randrange(20)
        if choice < 11:
            self.append()
        elif choice < 13:
            self.rig.settle()
        elif choice < 14:
            self.compact()
        elif choice < 15:
            self.install()
        elif choice < 18:
            self.crash()
        else:
            self.rig.close()
            self.reopen(self.rig.path)
        self.check()

    def next_write(self) -> tuple[list[Entry], HardState]:
        """Return entries, sometimes replacing the end, sometimes none, and a hard state."""
        random = self.random
        first = len(self.entries) + 1
        if random.random() < 0.2:
            first = random.randint(max(self.first, first - 12), first)
        term = self.hard_state.term + random.choice((0, 0, 1))
        count = random.choice((0, 1, 1, 1, 2, 5))
        entries = [
            Entry(term, index, 0, random.randbytes(random.choice(SIZES)))
            for index in range(first, first + count)
        ]
        return entries, HardState(term, random.randrange(3), self.hard_state.commit)

    def append(self) -> None:
        entries, hard_state = self.next_write()
        self.rig.append(entries, hard_state)
        if entries:
            del self.entries[entries[0].index - 1 :]
            self.entries += entries
        self.hard_state = hard_state

    def compact(self) -> None:
        if len(self.entries) < self.first:
            return
        index = self.random.randint(self.first, len(self.entries))
        self.rig.log.compact(index)
        self.rig.turn_until(lambda: not self.rig.log.has_work())
        self.first = index + 1

    def install(self) -> None:
        """A snapshot takes the place of the log."""
        index = len(self.entries) + self.random.randint(1, 9)
        term = self.hard_state.term + 1
        state = HardState(term, 0, index)
        told: list[int] = []
        self.rig.log.install_snapshot(state, Snapshot(index, term), lambda: told.append(1))
        self.rig.turn_until(lambda: told != [])
        self.entries = [Entry(term, i) for i in range(1, index + 1)]
        self.first = index + 1
        self.hard_state = state

    def crash(self) -> None:
        """Cut the power during a write: any of its sectors may have reached the disk."""
        random, rig = self.random, self.rig
        before = rig.image()
        kept = (self.entries[:], self.first, self.hard_state)
        old = (self.entries[self.first - 1 :], self.hard_state)
        if random.randrange(5):
            self.append()
        else:
            self.install()
        after = rig.image()
        rig.close()
        share = random.choice((0.0, 0.5, 0.9, 1.0))
        image, is_whole = dict(after), True
        for name in ("journal.0", "journal.1"):
            content = bytearray(before[name])
            for at in range(0, len(content), SECTOR):
                sector = after[name][at : at + SECTOR]
                if sector != content[at : at + SECTOR]:
                    if random.random() < share:
                        content[at : at + SECTOR] = sector
                    else:
                        is_whole = False
            image[name] = bytes(content)
        folder = self.path / "crashed"
        write_image(folder, image)
        found = read_log(folder)
        new = (self.entries[self.first - 1 :], self.hard_state)
        # A sector that is missing may have held padding only, and LMDB may hold the append.
        assert found == new or (not is_whole and found == old)
        if found != new:
            self.entries, self.first, self.hard_state = kept
        self.lives += 1
        folder.rename(self.path / str(self.lives))
        self.reopen(self.path / str(self.lives))

    def reopen(self, path: Path) -> None:
        self.rig = JournalRig(path, SEGMENT_SIZE, tail_size_max=2000)

    def check(self) -> None:
        log, last = self.rig.log, len(self.entries)
        assert (log.first_index(), log.last_index()) == (self.first, last)
        assert log.initial_state()[0] == self.hard_state
        assert all_of(log) == self.entries[self.first - 1 :]
        if last >= self.first:
            low = self.random.randint(self.first, last)
            assert log.entries(low, last + 1, 1 << 30) == self.entries[low - 1 :]
            assert log.term(low) == self.entries[low - 1].term


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 1 << 32))
def test_no_crash_makes_the_log_differ_from_the_naive_one(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = ModelRun(Path(folder), Random(seed))
        try:
            for _ in range(40):
                run.step()
        finally:
            run.rig.close()
