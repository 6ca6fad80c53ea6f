"""Metrics: reads plain numbers when it is asked, under etcd's names.  Counts nothing itself.

The only importer of prometheus_client.  Its text form cannot be used: it puts ``_total``
behind the name of every counter, and some of etcd's do not end so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

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


BUCKET_LABEL: Final = "le"
"""Comes last; all other labels by their names, as Go's client writes them."""


class UnknownMetricError(KeyError):
    """No metric of the table has this name."""


class EtcdCollector(Collector):
    """Reads the registered sources, in the order of the table.

    A metric without a source is not shown: a zero that nobody counts would be a lie.
    """

    def __init__(self, sources: Mapping[str, Source], calls: ServerStats) -> None:
        """Raises `UnknownMetricError` for a name that is not in the table."""
        for name in sources:
            if name not in SERIES:
                raise UnknownMetricError(name)
        self._sources = dict(sources)
        self._calls = calls

    def collect(self) -> Iterator[Metric]:
        for name, series in SERIES.items():
            source = self._sources.get(name)
            if source is not None:
                yield _family(series, source())
        yield from self._grpc()

    def _grpc(self) -> Iterator[Metric]:
        started, handled, received, sent = (
            Metric(f"grpc_server_{name}", text, COUNTER)
            for name, text in (
                ("started_total", "Calls started."),
                ("handled_total", "Calls ended, by status."),
                ("msg_received_total", "Messages received."),
                ("msg_sent_total", "Messages sent."),
            )
        )
        known = {stats.path: stats for stats in self._calls.methods()}
        for kind, service, method in GRPC_METHODS:
            path = f"/{service}/{method}"
            stats = known.get(path) or MethodStats(path, 0)
            labels = dict(zip(_GRPC_LABELS, (method, service, kind), strict=True))
            started.add_sample(started.name, labels, stats.started)
            received.add_sample(received.name, labels, stats.received)
            sent.add_sample(sent.name, labels, stats.sent)
            for code, count in zip(CODE_NAMES, stats.handled, strict=True):
                handled.add_sample(handled.name, {"grpc_code": code, **labels}, count)
        yield from (started, handled, received, sent)


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
        registry.register(EtcdCollector(sources, calls))
        registry.register(ProcessMetrics())
        self._registry = registry
        self._scrapes = 0

    def render(self) -> bytes:
        """Return the text form, version 0.0.4."""
        parts: list[str] = []
        for metric in self._registry.collect():
            _render(metric, parts)
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
    parts.append(f"# HELP {name} {metric.documentation}\n# TYPE {name} {metric.type}\n")
    for sample in metric.samples:
        names = sorted(sample.labels, key=lambda name: (name == BUCKET_LABEL, name))
        labels = ",".join(f'{name}="{_escaped(sample.labels[name])}"' for name in names)
        shown = f"{{{labels}}}" if labels else ""
        parts.append(f"{sample.name}{shown} {floatToGoString(sample.value)}\n")


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
