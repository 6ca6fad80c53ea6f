"""Metrics: reads plain numbers when it is asked, under etcd's names.  Counts nothing itself.

Of prometheus_client only its way of writing numbers can be used (`numbers`): its page puts
``_total`` behind the name of every counter, and some of etcd's do not end so; and it makes an
object for each line, which costs four times as much as all the rest.  Here what lines begin with
is made once, and lines whose numbers are as before are not made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from etcdtw.grpc.call import UNARY
from etcdtw.grpc.stats import HANDLING_BOUNDS_S, MethodStats, ServerStats
from etcdtw.grpc.status import CODE_NAMES
from etcdtw.server.metrics.absent import ABSENT
from etcdtw.server.metrics.numbers import go_number
from etcdtw.server.metrics.process import PROCESS_SERIES, ProcessMetrics
from etcdtw.server.metrics.table import (
    COUNTER,
    GAUGE,
    GRPC_METHODS,
    HISTOGRAM,
    SERIES,
    Series,
)
from etcdtw.wire.histogram import Histogram

Reading = int | float | Histogram
Readings = Mapping[tuple[str, ...], Reading]
Source = Callable[[], Reading | Readings]
"""Returns the value now; for a metric with labels, values by label values in table order."""

# By name, as Prometheus' client for Go sorts them; so in `_labels`.
_GRPC_LABELS: Final = ("grpc_method", "grpc_service", "grpc_type")

BUCKET_LABEL: Final = "le"
"""Comes last; all other labels by their names, as Go's client writes them."""


class UnknownMetricError(KeyError):
    """No metric of the table has this name."""


class _Buckets:
    """The lines of one histogram."""

    def __init__(self, series: Series, labels: Mapping[str, str]) -> None:
        self._bounds = series.bounds
        shown = [go_number(bound) for bound in (*series.bounds, float("inf"))]
        self._heads = [
            f"{_named(f'{series.name}_bucket', {**labels, BUCKET_LABEL: bound})} "
            for bound in shown
        ]
        self._sum_head = f"{_named(f'{series.name}_sum', labels)} "
        self._count_head = f"{_named(f'{series.name}_count', labels)} "
        self._counts: list[int] = []
        self._total = 0.0
        self._text = ""

    def text(self, histogram: Histogram) -> str:
        if histogram.counts == self._counts and histogram.total == self._total:
            return self._text
        assert histogram.bounds == self._bounds, f"{self._count_head} has other buckets in etcd"
        self._counts, self._total = list(histogram.counts), histogram.total
        lines = []
        below = 0
        for head, count in zip(self._heads, self._counts, strict=True):
            below += count
            lines.append(f"{head}{go_number(below)}\n")
        lines.append(f"{self._sum_head}{go_number(self._total)}\n")
        lines.append(f"{self._count_head}{go_number(below)}\n")
        self._text = "".join(lines)
        return self._text


class Family:
    """One metric of the table, as text.

    What lines begin with is kept for the label values of the last rendering, and of no others.
    """

    def __init__(self, series: Series) -> None:
        self._series = series
        self._heading = _heading(series.name, series.help, series.kind)
        self._heads: dict[tuple[str, ...], str] = {}
        self._buckets: dict[tuple[str, ...], _Buckets] = {}

    @property
    def kept(self) -> int:
        """For how many sets of label values something is kept."""
        return len(self._heads) + len(self._buckets)

    def render(self, value: Reading | Readings, parts: list[str]) -> None:
        """Add the text form to ``parts``; nothing where there are no values."""
        readings: Readings = value if isinstance(value, Mapping) else {(): value}
        if not readings:
            return
        parts.append(self._heading)
        if self._series.kind == HISTOGRAM:
            self._render_buckets(readings, parts)
        else:
            self._render_values(readings, parts)

    def _render_values(self, readings: Readings, parts: list[str]) -> None:
        series, heads = self._series, self._heads
        for label_values, reading in readings.items():
            assert not isinstance(reading, Histogram), f"{series.name} is a {series.kind}"
            head = heads.get(label_values)
            if head is None:
                head = f"{_named(series.name, _labels(series, label_values))} "
                heads[label_values] = head
            parts.append(f"{head}{go_number(reading)}\n")
        if len(heads) > len(readings):
            self._heads = {values: heads[values] for values in readings}

    def _render_buckets(self, readings: Readings, parts: list[str]) -> None:
        series, known = self._series, self._buckets
        for label_values, reading in readings.items():
            assert isinstance(reading, Histogram), f"{series.name} needs a Histogram"
            buckets = known.get(label_values)
            if buckets is None:
                buckets = known[label_values] = _Buckets(series, _labels(series, label_values))
            parts.append(buckets.text(reading))
        if len(known) > len(readings):
            self._buckets = {values: known[values] for values in readings}


class _Calls(NamedTuple):
    """One family of the counters of calls."""

    name: str
    help: str
    counts: Callable[[MethodStats], Sequence[int]]
    codes: Sequence[str] = ()
    """Labels of the counts, where there are several."""

    def heads(self, labels: dict[str, str]) -> list[str]:
        """Return what the lines of a method with these labels begin with."""
        each = [{"grpc_code": code, **labels} for code in self.codes] or [labels]
        return [f"{_named(self.name, one)} " for one in each]


_CALLS: Final = (
    _Calls("grpc_server_started_total", "Calls started.", lambda stats: (stats.started,)),
    _Calls(
        "grpc_server_handled_total",
        "Calls ended, by status.",
        lambda stats: stats.handled,
        CODE_NAMES,
    ),
    _Calls("grpc_server_msg_received_total", "Messages received.", lambda stats: (stats.received,)),
    _Calls("grpc_server_msg_sent_total", "Messages sent.", lambda stats: (stats.sent,)),
)
_UNCALLED: Final = MethodStats("", UNARY)
"""Stands for the counters of methods that nobody has called."""


class _MethodLines:
    """The lines of one method in one family of the counters of calls."""

    def __init__(self, path: str, heads: Sequence[str]) -> None:
        self.path = path
        self._heads = heads
        self._counts: list[int] = []
        self._text = ""

    def text(self, counts: Sequence[int]) -> str:
        if list(counts) != self._counts:
            self._counts = list(counts)
            self._text = "".join(
                [
                    f"{head}{go_number(count)}\n"
                    for head, count in zip(self._heads, counts, strict=True)
                ]
            )
        return self._text


class GrpcCalls:
    """The counters of calls: most of the page, and few of them change between two scrapes."""

    def __init__(self, calls: ServerStats) -> None:
        self._calls = calls
        methods = [
            (f"/{service}/{method}", dict(zip(_GRPC_LABELS, (method, service, kind), strict=True)))
            for kind, service, method in GRPC_METHODS
        ]
        self._families = [
            (
                _heading(family.name, family.help, COUNTER),
                family.counts,
                [_MethodLines(path, family.heads(labels)) for path, labels in methods],
            )
            for family in _CALLS
        ]

    def render(self, parts: list[str]) -> None:
        """Add their text form to ``parts``."""
        known = {stats.path: stats for stats in self._calls.methods()}
        for heading, counts, methods in self._families:
            parts.append(heading)
            parts += [one.text(counts(known.get(one.path, _UNCALLED))) for one in methods]


_HANDLING: Final = Series(
    "grpc_server_handling_seconds", HISTOGRAM, "Time of calls.", bounds=HANDLING_BOUNDS_S
)
_NO_TIMES: Final = Histogram(HANDLING_BOUNDS_S)


class HandlingTimes:
    """How long calls took, by method (``--metrics=extensive``)."""

    def __init__(self, calls: ServerStats) -> None:
        self._calls = calls
        self._heading = _heading(_HANDLING.name, _HANDLING.help, _HANDLING.kind)
        self._methods = [
            (
                f"/{service}/{method}",
                _Buckets(_HANDLING, dict(zip(_GRPC_LABELS, (method, service, kind), strict=True))),
            )
            for kind, service, method in GRPC_METHODS
        ]

    def render(self, parts: list[str]) -> None:
        """Add their text form to ``parts``."""
        parts.append(self._heading)
        for path, buckets in self._methods:
            parts.append(buckets.text(self._calls.handling_s(path) or _NO_TIMES))


_IN_FLIGHT: Final = Series("promhttp_metric_handler_requests_in_flight", GAUGE, "Scrapes now.")
_SCRAPES: Final = Series(
    "promhttp_metric_handler_requests_total", COUNTER, "Scrapes, by status.", ("code",)
)


class Scrape:
    """Renders everything there is to read, as ``/metrics`` shows it.

    In the order of the table.  A metric without a source is not shown: a zero that nobody counts
    would be a lie.
    """

    def __init__(self, sources: Mapping[str, Source], calls: ServerStats) -> None:
        """Raises `UnknownMetricError` for a name that is not in the table."""
        for name in sources:
            if name not in SERIES:
                raise UnknownMetricError(name)
        self._families = [
            (Family(series), sources[name]) for name, series in SERIES.items() if name in sources
        ]
        self._process = ProcessMetrics()
        self._of_process = {series.name: Family(series) for series in PROCESS_SERIES}
        self._calls = GrpcCalls(calls)
        self._handling = HandlingTimes(calls) if calls.is_measured else None
        self._in_flight = Family(_IN_FLIGHT)
        self._by_status = Family(_SCRAPES)
        self._scrapes = 0

    def prepare(self) -> Iterator[None]:
        """Make what lines begin with, and import what writes numbers; nobody has scraped.

        The first rendering takes ten times as long as those after it, 20 ms: it stops after each
        family, and so often others are to be served.
        """
        yield from self._steps([])
        self._scrapes -= 1

    def render(self) -> bytes:
        """Return the text form, version 0.0.4."""
        parts: list[str] = []
        for _ in self._steps(parts):
            pass
        return "".join(parts).encode()

    def _steps(self, parts: list[str]) -> Iterator[None]:
        for family, source in self._families:
            family.render(source(), parts)
            yield
        for name, value in self._process.readings().items():
            self._of_process[name].render(value, parts)
        yield
        self._calls.render(parts)
        if self._handling is not None:
            yield
            self._handling.render(parts)
        parts.append(NOT_HERE)
        self._in_flight.render(1, parts)  # one rendering is for all that wait for it
        scrapes: Readings = {("200",): self._scrapes, ("500",): 0, ("503",): 0}
        self._by_status.render(scrapes, parts)
        self._scrapes += 1


def _labels(series: Series, values: tuple[str, ...]) -> dict[str, str]:
    return dict(sorted(zip(series.labels, values, strict=True)))


def _heading(name: str, text: str, kind: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _named(name: str, labels: Mapping[str, str]) -> str:
    if not labels:
        return name
    names = sorted(labels, key=lambda name: (name == BUCKET_LABEL, name))
    shown = ",".join([f'{one}="{_escaped(labels[one])}"' for one in names])
    return f"{name}{{{shown}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _not_here() -> str:
    """Return the page's part that never changes."""
    parts: list[str] = []
    for series, label_values in ABSENT:
        zero = Histogram(series.bounds) if series.kind == HISTOGRAM else 0
        Family(series).render({values: zero for values in label_values}, parts)
    return "".join(parts)


NOT_HERE: Final = _not_here()
