"""What must hold on every disk image that a power loss can leave behind."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import lmdb
import pytest

from etcdtw.raft.entry import Entry
from etcdtw.storage.log.log import LmdbLog, open_log
from etcdtw.storage.log.writer import NOTHING_UNSETTLED, LogJob
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state_rebuild import verify
from tests.support.crashlab.recording import FILES
from tests.support.crashlab.workload import MAP_SIZE, apply_entry, entry_of
from tests.support.model_backend import ModelBackend

NO_LIMIT = 1 << 40


class NoWriter:
    """A writer for a log that is only read."""

    def write(self, job: LogJob, done: object) -> None:
        raise AssertionError("a checked log is written to")

    def unsettled_first(self) -> int:
        return NOTHING_UNSETTLED

    def close(self) -> None:
        """Nothing is open."""


class Model:
    """The digests of the state after each index, made once."""

    def __init__(self) -> None:
        self.backend = ModelBackend()
        self.digests = [self.digest(b"".join(self.backend.frames(b"", None)))]

    @staticmethod
    def digest(octets: bytes) -> bytes:
        return hashlib.sha256(octets).digest()

    def after(self, index: int) -> bytes:
        while len(self.digests) <= index:
            apply_entry(self.backend, len(self.digests))
            self.digests.append(self.digest(b"".join(self.backend.frames(b"", None))))
        return self.digests[index]


def allowed_logs(marks: list[str]) -> list[dict[int, int]]:
    """Return every log (index -> term) that may be found: all that was acknowledged, and then
    any number of the appends that were under way, in order."""
    begun = [mark[2:] for mark in marks if mark.startswith("B ")]
    acked = sum(mark.startswith("A ") for mark in marks)
    terms: dict[int, int] = {}
    allowed: list[dict[int, int]] = []
    for position, text in enumerate(begun):
        if position >= acked:
            allowed.append(dict(terms))
        first, last, term = map(int, text.split())
        for index in [index for index in terms if index >= first]:
            del terms[index]
        terms.update(dict.fromkeys(range(first, last + 1), term))
    allowed.append(terms)
    return allowed


def check_image(folder: Path, marks: list[str], contents: dict[str, bytes], model: Model) -> None:
    """Boot from an image as a member does and compare with the promises.  Raises on any breach."""
    for name in ("wal", "state"):
        path = folder / "member" / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for member in ("member", f"member/{name}"):
            os.chmod(folder / member, 0o700)
        (path / "lock.mdb").unlink(missing_ok=True)
    for tag, name in FILES.items():
        (folder / "member" / name).write_bytes(contents[tag])
    last_index = check_log(folder / "member" / "wal", allowed_logs(marks))
    durable = max([int(mark[2:]) for mark in marks if mark.startswith("G ")], default=0)
    check_state(folder / "member" / "state", durable, last_index, model)


def check_log(path: Path, allowed: list[dict[int, int]]) -> int:
    env, lock_fd = open_log(path, MAP_SIZE)
    log = LmdbLog(env, NoWriter(), lock_fd=lock_fd)
    first, last = log.first_index(), log.last_index()
    found: list[Entry] = log.entries(first, last + 1, NO_LIMIT) if last >= first else []
    log.close()
    terms = {entry.index: entry.term for entry in found}
    assert any(
        terms == {index: term for index, term in log_terms.items() if index >= first}
        for log_terms in allowed
    ), "the log is none of those that were promised"
    assert all(entry == entry_of(entry.index, entry.term) for entry in found)
    return last


def check_state(path: Path, durable: int, last_index: int, model: Model) -> None:
    state = open_state(path, pytest.fail, map_size=MAP_SIZE)
    applied = state.applied_durable
    assert applied >= durable, "a generation that was confirmed is lost"
    assert applied <= last_index, "the state is ahead of the log"
    assert model.digest(b"".join(state.frames(b"", None))) == model.after(applied)
    assert state.revision == applied + 1
    try:
        assert verify(state._reader._tables) == []
    except lmdb.Error as error:
        raise AssertionError(f"the state is damaged: {error}") from error
    state.close()
