"""Metrics: reads plain numbers when it is asked, under etcd's names.  Counts nothing itself.

The only importer of prometheus_client.  Its text form cannot be used: it puts ``_total``
behind the name of every counter, and some of etcd's do not end so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from etcdtw.grpc.call import UNARY
from etcdtw.grpc.stats import MethodStats, ServerStats
from etcdtw.grpc.status import CODE_NAMES
from etcdtw.server.metrics.process import ProcessMetrics
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
Source = Callable[[], Reading | Mapping[tuple[str, ...], Reading]]
"""Returns the value now; for a metric with labels, values by label values in table order."""

# By name, as Prometheus' client for Go sorts them; so in `_family`.
_GRPC_LABELS: Final = ("grpc_method", "grpc_service", "grpc_type")

NOTHING: Final = floatToGoString(0)
BUCKET_LABEL: Final = "le"
"""Comes last; all other labels by their names, as Go's client writes them."""


class UnknownMetricError(KeyError):
    """No metric of the table has this name."""


class EtcdCollector(Collector):
    """Reads the registered sources, in the order of the table.

    A metric without a source is not shown: a zero that nobody counts would be a lie.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        """Raises `UnknownMetricError` for a name that is not in the table."""
        for name in sources:
            if name not in SERIES:
                raise UnknownMetricError(name)
        self._sources = dict(sources)

    def collect(self) -> Iterator[Metric]:
        for name, series in SERIES.items():
            source = self._sources.get(name)
            if source is not None:
                yield _family(series, source())


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


class GrpcCalls:
    """The counters of calls: most of the page, so that what their lines begin with is made once."""

    def __init__(self, calls: ServerStats) -> None:
        self._calls = calls
        methods = [
            (f"/{service}/{method}", dict(zip(_GRPC_LABELS, (method, service, kind), strict=True)))
            for kind, service, method in GRPC_METHODS
        ]
        self._families = [
            (family, [(path, family.heads(labels)) for path, labels in methods])
            for family in _CALLS
        ]

    def render(self, parts: list[str]) -> None:
        """Add their text form to ``parts``."""
        known = {stats.path: stats for stats in self._calls.methods()}
        for family, methods in self._families:
            parts.append(_heading(family.name, family.help, COUNTER))
            for path, heads in methods:
                counts = family.counts(known.get(path, _UNCALLED))
                for head, count in zip(heads, counts, strict=True):
                    parts.append(f"{head}{floatToGoString(count) if count else NOTHING}\n")


def _family(series: Series, value: Reading | Mapping[tuple[str, ...], Reading]) -> Metric:
    metric = Metric(series.name, series.help, series.kind)
    readings = value if isinstance(value, Mapping) else {(): value}
    for label_values, reading in readings.items():
        labels = dict(sorted(zip(series.labels, label_values, strict=True)))
        if series.kind == HISTOGRAM:
            assert isinstance(reading, Histogram), f"{series.name} needs a Histogram"
            assert reading.bounds == series.bounds, f"{series.name} has other buckets in etcd"
            metric.samples += _buckets(series.name, labels, reading)
        else:
            assert not isinstance(reading, Histogram), f"{series.name} is a {series.kind}"
            metric.add_sample(series.name, labels, reading)
    return metric


def _buckets(name: str, labels: dict[str, str], histogram: Histogram) -> list[Sample]:
    samples = []
    below = 0
    bounds = (*histogram.bounds, float("inf"))
    for bound, count in zip(bounds, histogram.counts, strict=True):
        below += count
        bucket_labels = {**labels, "le": floatToGoString(bound)}
        samples.append(Sample(f"{name}_bucket", bucket_labels, below))
    samples.append(Sample(f"{name}_sum", labels, histogram.total))
    samples.append(Sample(f"{name}_count", labels, below))
    return samples


class Scrape:
    """Renders everything there is to read, as ``/metrics`` shows it."""

    def __init__(self, sources: Mapping[str, Source], calls: ServerStats) -> None:
        """Raises `UnknownMetricError` for a name that is not in the table."""
        registry = CollectorRegistry()
        registry.register(EtcdCollector(sources))
        registry.register(ProcessMetrics())
        self._registry = registry
        self._calls = GrpcCalls(calls)
        self._scrapes = 0

    def render(self) -> bytes:
        """Return the text form, version 0.0.4."""
        parts: list[str] = []
        for metric in self._registry.collect():
            _render(metric, parts)
        self._calls.render(parts)
        current = Metric("promhttp_metric_handler_requests_in_flight", "Scrapes now.", GAUGE)
        current.add_sample(current.name, {}, 1)  # one rendering is for all that wait for it
        _render(current, parts)
        scrapes = Metric("promhttp_metric_handler_requests_total", "Scrapes, by status.", COUNTER)
        for code, count in (("200", self._scrapes), ("500", 0), ("503", 0)):
            scrapes.add_sample(scrapes.name, {"code": code}, count)
        _render(scrapes, parts)
        self._scrapes += 1
        return "".join(parts).encode()


def _render(metric: Metric, parts: list[str]) -> None:
    if not metric.samples:
        return
    name = metric.samples[0].name if metric.type in (COUNTER, GAUGE) else metric.name
    parts.append(_heading(name, metric.documentation, metric.type))
    for sample in metric.samples:
        shown = _named(sample.name, sample.labels)
        parts.append(f"{shown} {floatToGoString(sample.value)}\n")


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
