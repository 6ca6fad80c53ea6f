"""A recorded run: compile the recorder, run a workload under it, cut it into legal disk images.

After a power loss a disk holds every write that was made durable, and any part of the rest:
whole writes or single sectors of 512 octets.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from struct import Struct
from typing import Final

HEAD: Final = Struct("<ccQI")
SECTOR: Final = 512
FILES: Final = {
    "w": "wal/data.mdb", "j": "wal/journal.0", "k": "wal/journal.1", "s": "state/data.mdb",
}  # fmt: skip
ROOT: Final = Path(__file__).resolve().parents[3]
FOLDER: Final = Path(__file__).resolve().parent


def compiler() -> str | None:
    """Return a C compiler's path, if there is one."""
    return shutil.which("cc") or shutil.which("gcc")


def build_recorder(folder: Path) -> Path:
    """Compile the recorder into ``folder``."""
    cc = compiler()
    assert cc is not None, "no C compiler"
    library = folder / "recorder.so"
    subprocess.run(
        [cc, "-shared", "-fPIC", "-O1", "-o", str(library), str(FOLDER / "recorder.c"),
         "-ldl", "-lpthread"],
        check=True,
    )  # fmt: skip
    return library


def record_run(
    library: Path, folder: Path, seed: int, steps: int, eio: str = "", timeout_s: float = 60.0
) -> tuple[int, bytes]:
    """Run the workload in ``folder`` under the recorder; return its exit status and the log."""
    log = folder / "log"
    environment = dict(os.environ)
    environment.update(LD_PRELOAD=str(library), CRASHLAB_LOG=str(log), PYTHONPATH=str(ROOT))
    if eio:
        environment["CRASHLAB_EIO"] = eio
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.crashlab.workload", str(folder), str(seed),
         str(steps)],
        env=environment, cwd=ROOT, timeout=timeout_s, check=False,
    )  # fmt: skip
    return done.returncode, log.read_bytes()


def parse(log: bytes) -> list[tuple[str, str, int, bytes]]:
    """Return the events of a log: (kind, tag, offset, data)."""
    events: list[tuple[str, str, int, bytes]] = []
    at = 0
    while at < len(log):
        kind, tag, offset, size = HEAD.unpack_from(log, at)
        at += HEAD.size
        events.append((kind.decode(), tag.decode("latin-1"), offset, log[at : at + size]))
        at += size
    return events


class Disk:
    """One file: what is durable, and the writes that are not yet."""

    def __init__(self) -> None:
        self.durable = bytearray()
        self.pending: list[tuple[int, bytes]] = []

    def write(self, offset: int, data: bytes) -> None:
        self.pending.append((offset, data))

    def settle_last(self, offset: int) -> None:
        """The newest write, at ``offset``, became durable by itself."""
        at, data = self.pending.pop()
        assert at == offset, "two writers on one file"
        apply(self.durable, at, data)

    def sync(self) -> None:
        for offset, data in self.pending:
            apply(self.durable, offset, data)
        self.pending.clear()

    def image(self, random: Random) -> bytes:
        """Return one legal content after a power loss."""
        content = bytearray(self.durable)
        mode = random.randrange(4)
        for offset, data in self.pending:
            if mode == 0:
                continue  # nothing reached the disk
            if mode == 1 or (mode == 2 and random.random() < 0.5):
                apply(content, offset, data)
            elif mode == 3:
                for start in range(0, len(data), SECTOR):
                    if random.random() < 0.5:
                        apply(content, offset + start, data[start : start + SECTOR])
        return bytes(content)


def apply(content: bytearray, offset: int, data: bytes) -> None:
    """Write ``data`` at ``offset``, growing with zeros."""
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def cuts(
    events: list[tuple[str, str, int, bytes]], count: int, random: Random
) -> Iterator[tuple[list[str], dict[str, bytes]]]:
    """Yield, for ``count`` random cuts, the marks made before it and a content for each file.

    Cuts begin when all files have been created durably.
    """
    disks: dict[str, Disk] = {tag: Disk() for tag in FILES}
    marks: list[str] = []
    first = next(i for i, event in enumerate(events) if event[3] == b"begin")
    places = sorted(random.choices(range(first + 1, len(events)), k=count))
    for i, (kind, tag, offset, data) in enumerate(events):
        while places and places[0] == i:
            places.pop(0)
            yield list(marks), {name: disk.image(random) for name, disk in disks.items()}
        if kind == "M":
            marks.append(data.decode())
        elif kind == "W":
            disks[tag].write(offset, data)
        elif kind == "D":
            disks[tag].settle_last(offset)
        else:
            disks[tag].sync()
