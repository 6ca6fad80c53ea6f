"""No RPC, field or page of real etcd is missing, and none is without a test that exercises it."""

from __future__ import annotations

from typing import Final

import pytest

from etcdtw.gateway.routes import ROUTES
from etcdtw.server.metrics.table import GRPC_METHODS
from etcdtw.wire.pool import POOL
from tests.support.exercised import where_field, where_page, where_rpc
from tests.support.surface import (
    RecordedRpc,
    recorded_fields,
    recorded_pages,
    recorded_rpcs,
)

GO_PROFILES: Final = "profiles of Go's runtime, which is not here (docs/departures.md)"
NOT_EXERCISED: Final = {
    "/debug/pprof/block": GO_PROFILES,
    "/debug/pprof/mutex": GO_PROFILES,
    "/debug/pprof/symbol": GO_PROFILES,
    "/debug/pprof/threadcreate": GO_PROFILES,
    "/debug/pprof/trace": GO_PROFILES,
    "/debug/requests": "golang.org/x/net/trace, at debug level: traces have a page of their own",
    "/debug/events": "the same",
}
"""Pages that are not here, and why."""


@pytest.mark.parametrize("rpc", recorded_rpcs(), ids=lambda rpc: rpc.path)
def test_each_rpc_of_real_etcd_is_counted_routed_and_exercised(rpc: RecordedRpc) -> None:
    service, method = rpc.path[1:].split("/")
    assert (rpc.kind, service, method) in GRPC_METHODS
    for route in rpc.routes:
        assert ROUTES[route.encode()].method == rpc.path
    assert where_rpc(rpc)


def test_each_field_of_real_etcd_has_its_number_here() -> None:
    wrong = []
    for (message, field), number in recorded_fields().items():
        found = POOL.FindMessageTypeByName(message).fields_by_name.get(field)
        if found is None or found.number != number:
            wrong.append(f"{message}.{field}")
    assert wrong == []


def test_each_field_of_real_etcd_is_exercised() -> None:
    rpcs = recorded_rpcs()
    assert [f"{m}.{f}" for m, f in recorded_fields() if not where_field(m, f, rpcs)] == []


def test_each_page_of_real_etcd_is_exercised_or_said_not_to_be_here() -> None:
    pages = {path for _, path in recorded_pages()}
    assert set(NOT_EXERCISED) <= pages
    assert [path for path in sorted(pages - set(NOT_EXERCISED)) if not where_page(path)] == []
