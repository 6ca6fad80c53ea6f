"""Bits that flip in a member's files: ``python -m tests.integration.bitflips --flips 1000``.

A member is filled and killed, so that its journal holds what LMDB does not.  Then, again and
again: its data directory is copied, one bit flips in a page that is in use, and a process of its
own opens log and state as a member does, reads everything, compares it with what the sound
directory says, and sweeps.  The table tells what found each.

Not one wrong value may be served.  Keys that a damaged page hides must be found by the sweep, and
a crash within LMDB by the next start, which refuses or makes the state anew.
"""

from __future__ import annotations

import argparse
import contextlib
import marshal
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, cast

import lmdb

from etcdtw.config.config import configure
from etcdtw.raft.log import NO_LIMIT
from etcdtw.server.start.data import Data, open_data
from etcdtw.storage.disk.directory import DataDirError
from etcdtw.storage.integrity.check import MARK
from etcdtw.storage.integrity.sweep import sweep
from etcdtw.storage.log.codec import CorruptionError
from etcdtw.storage.rows.codec import BUCKETS, StateCorruptionError
from tests.support.etcd_client import EtcdClient
from tests.support.page_map import PAGE, free_space, pages_in_use
from tests.support.processes import RunningMember

KEYS: Final = 2000
FREQUENT: Final = ("leaf", "branch")
STATE, LOG, JOURNAL = "state/", "wal/", "journal"
SHARES: Final = ((STATE, 0.6), (LOG, 0.25), (JOURNAL, 0.15))

AT_READ: Final = "checksum at read"
ANSWERED: Final = "checksum at read, answered from history"
SWEPT: Final = "sweep"
REFUSED: Final = "refused start"
MENDED: Final = "made anew at the start"
CRASHED: Final = "crash within LMDB, then refused"
CRASH_MENDED: Final = "crash within LMDB, then made anew"
CRASH_LOOP: Final = "crash at each start"
HARMLESS: Final = "harmless"
MISSED: Final = "MISSED: keys absent or misplaced"
WRONG: Final = "WRONG VALUE SERVED"
OUTCOMES: Final = (
    AT_READ, ANSWERED, SWEPT, REFUSED, MENDED, CRASHED, CRASH_MENDED, CRASH_LOOP, HARMLESS,
    MISSED, WRONG,
)  # fmt: skip
BAD: Final = (CRASH_LOOP, MISSED, WRONG)
TIMEOUT_S: Final = 120

Facts = dict[str, Any]


def populate(folder: Path) -> Path:
    """Fill a member and kill it; return its directory ``member``."""
    random = Random(11)
    data_dir = folder / "data"
    with RunningMember("etcdtw", data_dir=data_dir) as member:
        with EtcdClient(member.endpoint) as client:
            lease = client.invoke("lease_grant", TTL=86_400, ID=4711).ID
            for number in range(KEYS):
                client.put(b"key/%05d" % number, random.randbytes(random.choice((8, 60, 300))))
            for number in range(0, KEYS, 3):
                client.put(b"key/%05d" % number, random.randbytes(40), lease=lease * (number % 2))
            for number in range(20):
                client.put(b"large/%d" % number, random.randbytes(9000))
            for number in range(0, KEYS, 7):
                client.invoke("delete_range", key=b"key/%05d" % number)
            for number in range(400):
                client.put(b"hot", b"%d" % number)
            client.invoke("compact", revision=KEYS, physical=True)
            time.sleep(2.5)
            for number in range(60):
                client.put(b"unsettled/%d" % number, random.randbytes(100))
        member.kill()
        kept = folder / "member"
        shutil.copytree(data_dir / "member", kept, symlinks=True)
    (kept / "state" / MARK).unlink(missing_ok=True)  # a start that does not look by itself
    return kept


def open_all(member: Path) -> Data:
    """Open log and state as a member does, in this process."""
    config = configure(["--data-dir", str(member.parent)], {}, lambda path: b"")
    return open_data(
        config,
        time.monotonic,
        lambda call: call(),
        cast("Any", None),
        fail_stop=_end,
        random=Random(1),
    )


def _end(reason: str) -> None:
    raise DataDirError(reason)


def read_all(data: Data) -> Facts:
    """Ask log and state for everything that anybody could be told."""
    state, log = data.state, data.log
    facts: Facts = {"state": {}, "frames": {}, "buckets": {}}
    first, last = log.first_index(), log.last_index()
    hard_state, conf_state = log.initial_state()
    facts["log"] = [
        (one.index, one.term, one.type, bytes(one.data))
        for one in log.entries(first, last + 1, NO_LIMIT)
    ]
    facts["vote"] = (hard_state.term, hard_state.vote, first, last, str(conf_state))
    facts["applied"] = (state.applied_index, state.applied_term, state.revision)
    for bucket in BUCKETS:
        facts["buckets"][bucket] = state.bucket_items(bucket)
    for lease in (4711, 4712):
        facts["buckets"][b"attached%d" % lease] = [(key, b"") for key in state.attached(lease)]
    revision, compacted = state.revision, KEYS
    facts["frames"]["all"] = [bytes(one) for one in state.frames(b"", None)]
    for name in ("pieces", "pieces again", "pieces joined"):
        facts["frames"][name] = [b"".join(state.pieces(b"", None)[0])]
    for at in range(compacted, revision, 997):
        facts["frames"][f"at {at}"] = [bytes(one) for one in state.frames_at(b"", None, at)]
        facts["buckets"][b"count %d" % at] = [(b"", b"%d" % state.count_at(b"", None, at))]
    facts["frames"]["changes"] = [
        marshal.dumps(tuple(one)) for one in state.changes_from(compacted, 0, revision, 1 << 30)
    ]
    for low, high in ((b"", None), (b"key/00100", b"key/01700"), (b"key/003", b"key/004")):
        facts["buckets"][b"count" + low] = [(b"", b"%d" % state.count(low, high))]
    for number in range(KEYS):
        key = b"key/%05d" % number
        facts["state"][key] = state.get(key)
    return facts


def compare(found: Facts, sound: Facts) -> str:
    """Return WRONG, MISSED (something is absent or misplaced) or HARMLESS."""
    worst = HARMLESS
    for part in ("log", "vote", "applied"):
        if found[part] != sound[part]:
            return f"{WRONG}: {part}"
    for key, record in sound["state"].items():
        if found["state"][key] != record:
            if found["state"][key] is not None:
                return f"{WRONG}: {key!r}"
            worst = MISSED
    for name, frames in sound["frames"].items():
        if found["frames"][name] == frames:
            continue
        worst = MISSED
        # Of pieces only the joined octets are known: they are the same rows as the frames.
        if not name.startswith("pieces") and not set(found["frames"][name]) <= set(frames):
            return f"{WRONG}: {name}"
    for name, rows in sound["buckets"].items():
        if found["buckets"][name] != rows:
            worst = MISSED
            if not name.startswith(b"count") and not set(found["buckets"][name]) <= set(rows):
                return f"{WRONG}: {name!r}"
    return worst


def judge(member: Path, sound: Facts) -> str:
    """Open, read, compare, sweep.  In a process of its own."""
    try:
        data = open_all(member)
    except (DataDirError, CorruptionError):
        return REFUSED
    mended = data.state.damage.mended_at_start
    try:
        outcome = compare(read_all(data), sound)
    except (StateCorruptionError, lmdb.Error, CorruptionError, DataDirError):
        return AT_READ
    if outcome.startswith(WRONG):
        return outcome
    if mended:
        return MENDED if outcome == HARMLESS else outcome
    if data.state.damage.rows_total and outcome == HARMLESS:
        return ANSWERED
    found = [one for one in sweep(data.state._reader._tables) if one is not None]
    if found:
        return SWEPT
    return outcome


def in_child(work: Callable[[], str]) -> tuple[int, str]:
    """Return the signal (0: none) and the answer of ``work``, done in a fork."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            os.close(read_fd)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            import signal

            signal.alarm(TIMEOUT_S)
            try:
                text = work()
            except BaseException as error:
                text = f"error: {type(error).__name__}: {error}"
            os.write(write_fd, text.encode()[:4096])
            status = 0
        os._exit(status)
    os.close(write_fd)
    parts = []
    while octets := os.read(read_fd, 65536):
        parts.append(octets)
    os.close(read_fd)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, b"".join(parts).decode()


def outcome_of(member: Path, sound: Facts) -> str:
    """Judge in a child; after a crash start again, as a supervisor would."""
    signal, text = in_child(lambda: judge(member, sound))
    if not signal:
        return text
    signal, text = in_child(lambda: judge(member, sound))
    if signal:
        return CRASH_LOOP
    if text in (REFUSED, AT_READ):
        return CRASHED
    return CRASH_MENDED if text == MENDED else text


class Target:
    """The files of one environment and the octets of them that are in use."""

    def __init__(self, member: Path) -> None:
        self.pages: dict[str, list[tuple[str, int, str]]] = {STATE: [], LOG: [], JOURNAL: []}
        self.free: dict[tuple[str, int], tuple[int, int]] = {}
        """(file, page) -> where its free space begins and ends"""
        for part, name in ((STATE, "state/data.mdb"), (LOG, "wal/data.mdb")):
            for page, title in pages_in_use(member / name).items():
                self.pages[part].append((name, page, title))
                if title in FREQUENT:
                    self.free[name, page] = free_space(member / name, page)
        for file in sorted((member / "wal").glob("journal*")):
            octets = file.read_bytes()
            for page in range(len(octets) // PAGE):
                if any(octets[page * PAGE : (page + 1) * PAGE]):
                    self.pages[JOURNAL].append((f"wal/{file.name}", page, "journal"))

    def pick(self, random: Random) -> tuple[str, int, int, str, str]:
        """Return file, octet, bit, part and title of what is to flip."""
        share = random.random()
        part = JOURNAL
        for name, size in SHARES:
            if share < size:
                part = name
                break
            share -= size
        # Kinds of pages alike: there are few branches among very many leaves.
        titles = sorted({title for _, _, title in self.pages[part]})
        title = random.choice([*titles, *[one for one in titles if one in FREQUENT] * 3])
        file, page, _ = random.choice([one for one in self.pages[part] if one[2] == title])
        return file, page * PAGE + self._octet(random, file, page), random.randrange(8), part, title

    def _octet(self, random: Random, file: str, page: int) -> int:
        """Return an octet of a page, of a tree's one that holds something."""
        while True:
            octet = random.randrange(PAGE)
            lower, upper = self.free.get((file, page), (PAGE, PAGE))
            if not lower <= octet < upper:
                return octet


def flip(file: Path, at: int, bit: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(at)
        octet = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes((octet ^ (1 << bit),)))


def run(flips: int, seed: int, folder: Path, is_verbose: bool = False) -> Counter[tuple[str, str]]:
    """Flip so many bits; return (part and kind of page, outcome) -> how often."""
    sound_copy = folder / "copy" / "member"
    member = populate(folder)
    sound_copy.parent.mkdir(mode=0o700)
    shutil.copytree(member, sound_copy, symlinks=True)
    data = open_all(sound_copy)
    sound = read_all(data)
    data.close()
    target = Target(member)
    random = Random(seed)
    tally: Counter[tuple[str, str]] = Counter()
    for number in range(flips):
        file, at, bit, part, title = target.pick(random)
        shutil.rmtree(sound_copy)
        shutil.copytree(member, sound_copy, symlinks=True)
        flip(sound_copy / file, at, bit)
        outcome = outcome_of(sound_copy, sound)
        kind = outcome if outcome in OUTCOMES else WRONG
        tally[f"{part} {title}", kind] += 1
        if is_verbose or kind in BAD:
            print(f"{number}: {file} octet {at} bit {bit} ({title}): {outcome}", flush=True)
    return tally


def table(tally: Counter[tuple[str, str]]) -> str:
    """Return the outcomes by kind of page."""
    parts = sorted({part for part, _ in tally})
    lines = [f"{'what found it':44s}" + "".join(f"{part:>20s}" for part in parts) + f"{'all':>8s}"]
    for outcome in OUTCOMES:
        counts = [tally[part, outcome] for part in parts]
        if sum(counts) or outcome in BAD:
            lines.append(
                f"{outcome:44s}" + "".join(f"{count:20d}" for count in counts) + f"{sum(counts):8d}"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args(arguments)
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        tally = run(options.flips, options.seed, Path(folder), options.verbose)
    print(table(tally))
    return int(any(count and outcome in BAD for (_, outcome), count in tally.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
