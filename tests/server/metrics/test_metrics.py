"""The scrape: names, types and buckets are etcd's, values are read when asked."""

from __future__ import annotations

from functools import partial

import pytest

from etcdtw.grpc.call import UNARY, Method
from etcdtw.grpc.stats import ServerStats
from etcdtw.grpc.status import CODE_NAMES
from etcdtw.server.metrics.absent import ABSENT
from etcdtw.server.metrics.metrics import Family, Scrape, Source, UnknownMetricError
from etcdtw.server.metrics.table import GAUGE, GRPC_METHODS, HISTOGRAM, SERIES, Series
from etcdtw.wire.histogram import Histogram, exponential_bounds


def scrape(sources: dict[str, Source], calls: ServerStats | None = None) -> list[str]:
    return Scrape(sources, calls or ServerStats()).render().decode().splitlines()


def test_every_name_of_the_table_appears_exactly_as_etcd_spells_it() -> None:
    sources: dict[str, Source] = {}
    for name, series in SERIES.items():
        if series.kind == HISTOGRAM:
            reading: int | Histogram = Histogram(series.bounds)
        else:
            reading = 7
        values = tuple(f"v{i}" for i in range(len(series.labels)))
        sources[name] = partial(dict, {values: reading})
    lines = scrape(sources)
    for name, series in SERIES.items():
        assert f"# TYPE {name} {series.kind}" in lines
        named = sorted((label, f"v{i}") for i, label in enumerate(series.labels))
        labels = ",".join(f'{label}="{value}"' for label, value in named)
        shown = f"{{{labels}}}" if labels else ""
        if series.kind == HISTOGRAM:
            assert f"{name}_count{shown} 0" in lines
        else:
            assert f"{name}{shown} 7" in lines


def test_no_metric_family_appears_twice() -> None:
    types = [line for line in scrape({}) if line.startswith("# TYPE")]
    assert len(types) == len({line.split()[2] for line in types})


def test_counter_without_total_keeps_its_name() -> None:
    lines = scrape({"etcd_server_health_success": lambda: 3})
    assert "# TYPE etcd_server_health_success counter" in lines
    assert "etcd_server_health_success 3" in lines


def test_metric_without_source_is_not_shown() -> None:
    assert not [line for line in scrape({}) if "etcd_mvcc_put_total" in line]


def test_value_is_read_at_each_scrape() -> None:
    values = [1]
    page = Scrape({"etcd_mvcc_put_total": lambda: values[0]}, ServerStats())
    assert b"etcd_mvcc_put_total 1\n" in page.render()
    values[0] = 2
    assert b"etcd_mvcc_put_total 2\n" in page.render()


def test_histogram_is_cumulative_with_etcds_buckets() -> None:
    series = SERIES["etcd_disk_wal_fsync_duration_seconds"]
    histogram = Histogram(series.bounds)
    for value in (0.001, 0.0015, 100.0):
        histogram.observe(value)
    lines = scrape({series.name: lambda: histogram})
    assert f'{series.name}_bucket{{le="0.001"}} 1' in lines
    assert f'{series.name}_bucket{{le="0.002"}} 2' in lines
    assert f'{series.name}_bucket{{le="8.192"}} 2' in lines
    assert f'{series.name}_bucket{{le="+Inf"}} 3' in lines
    assert f"{series.name}_sum 100.0025" in lines
    assert f"{series.name}_count 3" in lines


def test_a_histogram_is_read_at_each_scrape() -> None:
    series = SERIES["etcd_disk_wal_fsync_duration_seconds"]
    histogram = Histogram(series.bounds)
    page = Scrape({series.name: lambda: histogram}, ServerStats())
    assert f"{series.name}_count 0" in page.render().decode()
    histogram.observe(0.001)
    first = page.render().decode()
    assert f"{series.name}_count 1" in first
    assert f"{series.name}_sum 0.001" in first
    histogram.total += 1.0  # a count alone does not tell
    assert f"{series.name}_sum 1.001" in page.render().decode()


def test_calls_are_read_at_each_scrape() -> None:
    calls = ServerStats()
    page = Scrape({}, calls)
    page.render()
    put = calls.of(Method("/etcdserverpb.KV/Put", UNARY, None, None))
    labels = 'grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"'
    for count in (1, 2):
        put.started = put.handled[14] = count
        shown = page.render().decode()
        assert f"grpc_server_started_total{{{labels}}} {count}\n" in shown
        assert f'grpc_server_handled_total{{grpc_code="Unavailable",{labels}}} {count}\n' in shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (-1, "-1"),
        (0.25, "0.25"),
        (999_999, "999999"),
        (1_000_000, "1e+06"),
        (1_234_567, "1.234567e+06"),
        (float("inf"), "+Inf"),
        (True, "1"),
    ],
)
def test_numbers_are_written_as_go_does(value: float, shown: str) -> None:
    parts: list[str] = []
    Family(Series("a", GAUGE, "An a.")).render(value, parts)
    assert parts == ["# HELP a An a.\n# TYPE a gauge\n", f"a {shown}\n"]


@pytest.mark.parametrize("kind", [GAUGE, HISTOGRAM])
def test_nothing_is_kept_of_label_values_that_are_gone(kind: str) -> None:
    family = Family(Series("a", kind, "An a.", ("b",), (1.0,)))
    for i in range(100):
        reading = Histogram((1.0,)) if kind == HISTOGRAM else 1
        parts: list[str] = []
        family.render({(str(i),): reading, ("stays",): reading}, parts)
        assert f'{{b="{i}"' in "".join(parts)
        assert family.kept == 2
    family.render({}, parts)
    assert family.kept == 2


def test_all_calls_and_codes_are_shown_from_the_start() -> None:
    lines = scrape({})
    started = [line for line in lines if line.startswith("grpc_server_started_total{")]
    handled = [line for line in lines if line.startswith("grpc_server_handled_total{")]
    assert len(started) == len(GRPC_METHODS)
    assert len(handled) == len(GRPC_METHODS) * len(CODE_NAMES)
    assert (
        'grpc_server_started_total{grpc_method="Watch",grpc_service="etcdserverpb.Watch",'
        'grpc_type="bidi_stream"} 0' in lines
    )


def test_counted_calls_are_shown_by_code() -> None:
    calls = ServerStats()
    put = calls.of(Method("/etcdserverpb.KV/Put", UNARY, None, None))
    put.started, put.handled[0], put.handled[14] = 5, 3, 2
    lines = scrape({}, calls)
    labels = 'grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"'
    assert f"grpc_server_started_total{{{labels}}} 5" in lines
    assert f'grpc_server_handled_total{{grpc_code="OK",{labels}}} 3' in lines
    assert f'grpc_server_handled_total{{grpc_code="Unavailable",{labels}}} 2' in lines


def test_process_metrics_are_shown() -> None:
    lines = scrape({})
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"):
        assert [line for line in lines if line.startswith(f"{name} ")], name
    assert "# TYPE process_cpu_seconds_total counter" in lines


def test_label_values_are_escaped() -> None:
    lines = scrape({"etcd_server_version": lambda: {('a"b\\c\nd',): 1}})
    assert r'etcd_server_version{server_version="a\"b\\c\nd"} 1' in lines


def test_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownMetricError):
        Scrape({"etcd_nonsense": lambda: 1}, ServerStats())


def test_bounds_grow_by_their_factor() -> None:
    assert exponential_bounds(1, 4) == (1, 2, 4, 8)
    assert exponential_bounds(1, 3, 10) == (1, 10, 100)


def test_value_on_a_bound_belongs_to_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert (histogram.counts, histogram.total, histogram.count) == ([1, 2, 1], 7.0, 4)


def test_scrapes_are_counted_by_status_as_prometheus_client_for_go_does() -> None:
    page = Scrape({"etcd_server_has_leader": lambda: 1}, ServerStats())
    assert len(list(page.prepare())) == 2  # by nobody, in steps
    page.render()
    lines = page.render().decode().splitlines()
    name = "promhttp_metric_handler_requests"
    assert f"{name}_in_flight 1" in lines
    counts = [f'{name}_total{{code="{code}"}} {count}' for code, count in (("200", 1), ("503", 0))]
    assert set(counts) <= set(lines)


def test_times_of_calls_are_shown_when_they_are_measured() -> None:
    name = "grpc_server_handling_seconds"
    assert not any(name in line for line in scrape({}))
    calls = ServerStats()
    calls.measure(lambda: 1_300)
    put = calls.of(Method("/etcdserverpb.KV/Put", UNARY, None, None))
    assert put.handling is not None
    put.handling.ended(1_000)
    lines = scrape({}, calls)
    labels = 'grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"'
    assert f'{name}_bucket{{{labels},le="0.25"}} 0' in lines
    assert f'{name}_bucket{{{labels},le="0.5"}} 1' in lines
    assert f"{name}_sum{{{labels}}} 0.3" in lines
    assert len([line for line in lines if line.startswith(f"{name}_count")]) == len(GRPC_METHODS)


def test_what_is_not_here_is_shown_as_0_and_says_so() -> None:
    lines = scrape({})
    for series, label_values in ABSENT:
        (text,) = [line for line in lines if line.startswith(f"# HELP {series.name} ")]
        assert "Always 0" in text
        assert label_values
        assert series.name not in SERIES
    assert "etcd_grpc_proxy_cache_keys_total 0" in lines
    assert 'etcd_debugging_store_writes_total{action="set"} 0' in lines
    assert "etcd_snap_fsync_duration_seconds_count 0" in lines
