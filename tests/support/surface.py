"""What real etcd has: flags, metrics, RPCs, fields, pages (`make surface` writes it down)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tools.record_surface import FIELDS, FLAGS, METRICS, PAGES, RPCS


class RecordedMetric(NamedTuple):
    """One metric of the page; labels by name, without ``le``."""

    kind: str
    labels: tuple[str, ...]


def _lines(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if not line.startswith("#"):
            yield line.split()


def recorded_flags() -> dict[str, bool]:
    """Return the flags that real etcd names, and whether it has them."""
    return {words[0]: words[-1] != "!" for words in _lines(FLAGS.read_text(encoding="utf-8"))}


def recorded_metrics() -> dict[str, RecordedMetric]:
    """Return the metrics of one member of real etcd."""
    found = {}
    for name, kind, labels in _lines(METRICS.read_text(encoding="utf-8")):
        found[name] = RecordedMetric(kind, () if labels == "-" else tuple(labels.split(",")))
    return found


class RecordedRpc(NamedTuple):
    """One method, with its messages and its paths in the JSON gateway."""

    path: str
    kind: str
    request: str
    response: str
    routes: tuple[str, ...]


def recorded_rpcs() -> list[RecordedRpc]:
    """Return the methods of real etcd."""
    found = []
    for path, kind, request, response, routes in _lines(RPCS.read_text(encoding="utf-8")):
        paths = () if routes == "-" else tuple(routes.split(","))
        found.append(RecordedRpc(path, kind, request, response, paths))
    return found


def recorded_fields() -> dict[tuple[str, str], int]:
    """Return the number of each field, by message and name."""
    found = {}
    for name, number in _lines(FIELDS.read_text(encoding="utf-8")):
        message, _, field = name.rpartition(".")
        found[message, field] = int(number)
    return found


def recorded_pages() -> list[tuple[str, str]]:
    """Return port and path of each page, without queries."""
    found = [(port, path.partition("?")[0]) for port, path in _read(PAGES)]
    return list(dict.fromkeys(found))


def _read(path: Path) -> Iterator[list[str]]:
    return _lines(path.read_text(encoding="utf-8"))


METRICS_NOT_SHOWN: Final = dict.fromkeys(
    (
        "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
        "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
    ),
    "there is no loop for each stream: answers to watches are made in turns, and no clock is read "
    "for each",
)
"""Of the recorded metrics, what a member of ours does not show, and why."""
GO: Final = "go_"
"""What metrics of Go's runtime begin with: there is none here."""
