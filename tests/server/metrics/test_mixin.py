"""etcd's dashboards and alerts ask for nothing that a member does not show.

Their expressions are facts with their source (`tests/recorded/prometheus`); a real Prometheus
evaluates them by `make prometheus-loop`.
"""

from __future__ import annotations

from etcdtw.server.metrics.table import HISTOGRAM, SERIES
from tests.support.prometheus import (
    SHORTENED,
    VARIABLES,
    alerts,
    metric_names,
    mixin,
    panel_expressions,
    shortened,
)

BESIDE = {
    "up",  # Prometheus' own
    "process_resident_memory_bytes",
    "grpc_server_started_total",
    "grpc_server_handled_total",
    "grpc_server_handling_seconds_bucket",
}
"""What is shown beside the table."""


def test_each_metric_of_the_expressions_is_shown() -> None:
    shown = {
        f"{name}_bucket" if series.kind == HISTOGRAM else name for name, series in SERIES.items()
    }
    asked = set()
    for expression in [*panel_expressions(), *[alert.condition for alert in alerts()]]:
        names = metric_names(expression)
        assert names, expression
        asked |= names
    assert asked - shown - BESIDE == set()


def test_all_expressions_are_recorded_with_source_and_license() -> None:
    assert (len(panel_expressions()), len(alerts())) == (36, 15)
    assert len({alert.name for alert in alerts()}) == 15
    assert mixin()["license"] == "Apache-2.0"
    assert "github.com/etcd-io/etcd" in mixin()["source"]


def test_nothing_is_left_open_in_an_expression() -> None:
    for expression in [*map(shortened, panel_expressions()), *[a.condition for a in alerts()]]:
        assert "$" not in expression
        assert not [window for window in SHORTENED if window in expression]
    assert set(VARIABLES) == {"$job", "$cluster", "$__rate_interval"}


def test_patience_is_shortened_as_windows_are() -> None:
    assert {alert.patience_s for alert in alerts()} == {2.0, 6.0, 10.0, 20.0, 30.0}
