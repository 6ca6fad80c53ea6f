"""Power loss and failing disks, below LMDB, on the real log and state."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.support.crashlab.check import Model, check_image
from tests.support.crashlab.recording import build_recorder, compiler, cuts, parse, record_run

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(compiler() is None, reason="NO C COMPILER: POWER LOSS IS NOT TESTED"),
]

IMAGES = 200


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_recorder(tmp_path_factory.mktemp("crashlab"))


def check_images(
    folder: Path, events: list[tuple[str, str, int, bytes]], seed: int, count: int = IMAGES
) -> None:
    model = Model()
    found = 0
    for marks, contents in cuts(events, count, Random(seed)):
        check_image(folder, marks, contents, model)
        found += 1
    assert found == count


def test_no_power_loss_takes_back_a_promise(library: Path, tmp_path: Path) -> None:
    status, log = record_run(library, tmp_path, 1, 150)
    assert status == 0
    events = parse(log)
    kinds = {(kind, tag) for kind, tag, _, _ in events}
    assert kinds >= {("W", "w"), ("W", "s"), ("D", "w"), ("D", "s"), ("S", "w"), ("S", "s")}
    assert kinds >= {("D", "j"), ("D", "k")}, "both segments of the journal were used"
    assert not {b"msync", b"truncate"} & {data for _, _, _, data in events}
    check_images(tmp_path / "image", events, 1)


NOTICED = r"promised|damaged|follow|truncated|cut short|checksum|is not etcdtw-wal"


@pytest.mark.parametrize("lost", [("S", "w"), ("D", "j")])
def test_the_lab_finds_a_lost_write(library: Path, tmp_path: Path, lost: tuple[str, str]) -> None:
    """The check of the check: a disk that ignores syncs of the log must be noticed."""
    _, log = record_run(library, tmp_path, 2, 60)
    begin = next(i for i, event in enumerate(parse(log)) if event[3] == b"begin")
    events = [event for i, event in enumerate(parse(log)) if i < begin or event[:2] != lost]
    with pytest.raises(Exception, match=NOTICED):
        check_images(tmp_path / "image", events, 2)


@pytest.mark.parametrize("eio", ["w8", "s5", "j9", "k3"])
def test_a_failed_sync_stops_the_process_and_nothing_is_promised_afterwards(
    library: Path, tmp_path: Path, eio: str
) -> None:
    status, log = record_run(library, tmp_path, 3, 100_000, eio, timeout_s=20)
    assert status == 9
    events = parse(log)
    marks = [data.decode() for kind, _, _, data in events if kind == "M"]
    failed = marks.index("E")
    assert "stop" in marks[failed:]
    if eio[0] in "ws":
        # The settler's thread or the writer process failed.  Until the reactor hears it, it may
        # still tell what was durable before: the images below show that it was.
        failed = marks.index("stop")
    promised = "G " if eio[0] == "s" else "A "
    assert not [mark for mark in marks[failed:] if mark.startswith(promised)]
    check_images(tmp_path / "image", events, 3, count=20)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10, 20))
def test_no_power_loss_takes_back_a_promise_at_length(
    library: Path, tmp_path: Path, seed: int
) -> None:
    _, log = record_run(library, tmp_path, seed, 150)
    check_images(tmp_path / "image", parse(log), seed)
