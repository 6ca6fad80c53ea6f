"""What real etcd names in its help and on its page of metrics (`make surface` writes it down)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from tools.record_surface import FLAGS, METRICS


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
