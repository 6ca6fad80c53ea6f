"""Which pages stand on which listener."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from twisted.internet.interfaces import IReactorTime

from etcdtw import __version__
from etcdtw.apply.members import Members
from etcdtw.gateway import openapi
from etcdtw.gateway.health import HealthCounts, HealthSource, health_pages
from etcdtw.gateway.pages import (
    ALL_ALLOWED,
    JSON,
    OK,
    Access,
    Answer,
    Arguments,
    Page,
    Pages,
    Tree,
)

METRICS_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
METRICS: Final = b"/metrics"
VARS_TYPE: Final = b"application/json; charset=utf-8"


def version_page(members: Members) -> Page:
    """``/version``, with etcd's words for what is not known yet; etcdtw's own under its name."""

    def page(_arguments: Arguments) -> Answer:
        versions = {
            "etcdserver": members.server_version,
            "etcdcluster": members.cluster_version or "not_decided",
            "storage": members.storage_version or "unknown",
            "etcdtw": __version__,
        }
        return Answer(OK, json.dumps(versions, separators=(",", ":")).encode(), JSON)

    return page


def variables_page(variables: Callable[[], Mapping[str, object]]) -> Page:
    """``/debug/vars``: what a process tells of itself, a line for each variable."""

    def page(_arguments: Arguments) -> Answer:
        lines = [
            f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}"
            for name, value in sorted(variables().items())
        ]
        return Answer(OK, ("{\n" + ",\n".join(lines) + "\n}\n").encode(), VARS_TYPE)

    return page


def metrics_page(render: Callable[[], bytes]) -> Page:
    """``/metrics``: ``render`` returns the scrape in Prometheus' text form."""
    return lambda _arguments: Answer(OK, render(), METRICS_TYPE)


def client_site(
    health: HealthSource,
    counts: HealthCounts,
    members: Members,
    render_metrics: Callable[[], bytes],
    access: Access = ALL_ALLOWED,
    variables: Callable[[], Mapping[str, object]] = dict,
    *,
    tree: Tree | None = None,
    clock: IReactorTime | None = None,
) -> Pages:
    """Return the pages of client listeners; ``access``: ``--cors`` and ``--host-whitelist``.

    ``variables``: those of ``/debug/vars``, by name.  ``tree``: the JSON gateway, whose streams
    go on by ``clock``.
    """
    pages = health_pages(health, counts)
    pages[b"/version"] = version_page(members)
    pages[METRICS] = metrics_page(render_metrics)
    pages[b"/debug/vars"] = variables_page(variables)
    if tree is not None:
        pages[openapi.PATH] = openapi.openapi_page
    return Pages(pages, access, frozenset((METRICS,)), tree=tree, clock=clock)


def metrics_site(
    health: HealthSource, counts: HealthCounts, render_metrics: Callable[[], bytes]
) -> Pages:
    """Return the pages of ``--listen-metrics-urls``: health and metrics, nothing else."""
    pages = health_pages(health, counts)
    pages[METRICS] = metrics_page(render_metrics)
    return Pages(pages, open_paths=frozenset((METRICS,)))
