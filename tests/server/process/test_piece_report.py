"""Long pieces: each is a line of the file, and one warning now and then for each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from etcdtw.server.process.piece_report import WARNING_REST_NS, LongPieces

MS = 1_000_000


@implementer(ILogObserver)
class Warnings:
    """What was logged: kind, ms of CPU time, how many were left unsaid."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, int]] = []

    def __call__(self, event: LogEvent) -> None:
        if "unsaid" in event:
            self.lines.append((event["kind"], event["cpu_ms"], event["unsaid"]))


@pytest.fixture
def warnings() -> Iterator[Warnings]:
    observer = Warnings()
    globalLogPublisher.addObserver(observer)
    yield observer
    globalLogPublisher.removeObserver(observer)


class Time:
    now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def test_a_kind_is_warned_of_at_once_and_then_not_before_its_rest_is_over(
    warnings: Warnings,
) -> None:
    time = Time()
    pieces = LongPieces(time)
    pieces.report("apply", 30 * MS, 40 * MS)
    time.now_ns = WARNING_REST_NS - 1
    pieces.report("apply", 31 * MS, 40 * MS)
    pieces.report("flush", 32 * MS, 40 * MS)
    time.now_ns = WARNING_REST_NS
    pieces.report("apply", 33 * MS, 40 * MS)
    assert warnings.lines == [("apply", 30, 0), ("flush", 32, 0), ("apply", 33, 1)]
    time.now_ns = 2 * WARNING_REST_NS
    pieces.report("apply", 34 * MS, 40 * MS)
    assert warnings.lines[-1] == ("apply", 34, 0), "what was told is not told again"


def test_each_piece_is_a_line_of_the_file_also_while_nobody_is_warned(
    warnings: Warnings, tmp_path: Path
) -> None:
    path = tmp_path / "pieces"
    pieces = LongPieces(Time(), str(path))
    pieces.report("apply", 30 * MS + MS // 2, 40 * MS)
    pieces.report("apply", 26 * MS, 1_000 * MS)
    assert path.read_text() == "apply 30.5 40.0\napply 26.0 1000.0\n"
    assert len(warnings.lines) == 1
