"""A live member shows every metric that etcd's dashboard and alerts ask of a single member."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from etcdtw.grpc.status import CODE_NAMES
from etcdtw.server.metrics.table import GRPC_METHODS, HISTOGRAM, SERIES
from etcdtw.wire import etcdserverpb as pb
from tests.support.etcd_client import EtcdClient, RpcFailedError
from tests.support.judges import judge_program
from tests.support.processes import RunningMember
from tests.support.surface import GO, METRICS_NOT_SHOWN, recorded_metrics
from tools.record_surface import metrics_of

WITHIN_S: Final = 15.0

ASKED_FOR: Final = {
    # Grafana's dashboard for etcd, and its older variant.
    "etcd_disk_backend_commit_duration_seconds": "histogram",
    "etcd_disk_wal_fsync_duration_seconds": "histogram",
    "etcd_mvcc_db_total_size_in_bytes": "gauge",
    "etcd_network_client_grpc_received_bytes_total": "counter",
    "etcd_network_client_grpc_sent_bytes_total": "counter",
    "etcd_server_has_leader": "gauge",
    "etcd_server_leader_changes_seen_total": "counter",
    "etcd_server_proposals_applied_total": "gauge",
    "etcd_server_proposals_committed_total": "gauge",
    "etcd_server_proposals_failed_total": "counter",
    "etcd_server_proposals_pending": "gauge",
    "grpc_server_started_total": "counter",
    "grpc_server_handled_total": "counter",
    "grpc_server_handling_seconds": "histogram",
    "process_resident_memory_bytes": "gauge",
    # The alerts that come with etcd.
    "etcd_mvcc_db_total_size_in_use_in_bytes": "gauge",
    "etcd_server_quota_backend_bytes": "gauge",
}
"""What only a cluster has (peers and round trips) is in `test_cluster_metrics`."""

PER_PEER: Final = {
    name
    for name, series in SERIES.items()
    if series.labels in (("To",), ("From",)) or name.endswith(("active_peers", "peers_total"))
}

UNCOUNTED: Final = {
    "etcd_server_range_duration_seconds": "shown once a range was read",
    "etcd_server_request_duration_seconds": "shown for each type that was asked for",
    "etcd_server_learner_promote_failures": "shown for each reason",
    "etcdtw_tls_certificate_expiry_seconds": "shown for each certificate",
    **{name: "shown for each peer" for name in PER_PEER},
    "etcd_debugging_server_alarms": "shown for each raised alarm",
    "etcd_server_healthcheck": "shown for each check that was asked for",
    "etcd_server_healthchecks_total": "shown for each check that was asked for",
}
"""Of the table, what a quiet single member does not show, and why."""

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def member() -> Iterator[RunningMember]:
    flags = ["--compaction-batch-limit=10", "--compaction-sleep-interval=1ms"]
    flags += ["--metrics=extensive"]
    with RunningMember("etcdtw", flags=flags) as running:
        yield running


@pytest.fixture(scope="module")
def client(member: RunningMember) -> Iterator[EtcdClient]:
    with EtcdClient(member.endpoint) as connected:
        yield connected


class Scraped:
    """One scrape: types by name, values by name and labels."""

    def __init__(self, member: RunningMember) -> None:
        with urllib.request.urlopen(f"{member.client_url}/metrics", timeout=WITHIN_S) as answer:
            self.text = answer.read().decode()
        lines = self.text.splitlines()
        headers = [line.split() for line in lines if line.startswith("# TYPE")]
        self.types = {words[2]: words[3] for words in headers}
        self.values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                self.values[sample.name, frozenset(sample.labels.items())] = sample.value

    def value(self, name: str, **labels: str) -> float:
        return self.values[name, frozenset(labels.items())]


def test_everything_that_dashboards_and_alerts_ask_for_is_there(member: RunningMember) -> None:
    types = Scraped(member).types
    assert {name: types.get(name) for name in ASKED_FOR} == ASKED_FOR


def test_every_metric_of_the_table_is_shown_or_excused(member: RunningMember) -> None:
    types = Scraped(member).types
    assert {name for name in SERIES if name not in types} == set(UNCOUNTED)
    assert {types[name] == SERIES[name].kind for name in SERIES if name in types} == {True}


def test_every_method_and_code_counts_from_zero(member: RunningMember) -> None:
    scraped = Scraped(member)
    for kind, service, method in GRPC_METHODS:
        labels = {"grpc_type": kind, "grpc_service": service, "grpc_method": method}
        assert scraped.value("grpc_server_started_total", **labels) >= 0
        for code in CODE_NAMES:
            assert scraped.value("grpc_server_handled_total", **labels, grpc_code=code) >= 0


def test_buckets_are_etcds(member: RunningMember) -> None:
    scraped = Scraped(member)
    for name, series in SERIES.items():
        if series.kind == HISTOGRAM and name in scraped.types:
            found = {
                float(dict(labels)["le"])
                for found_name, labels in scraped.values
                if found_name == f"{name}_bucket"
            }
            assert found == {*series.bounds, float("inf")}, name


def test_counts_follow_what_clients_do(member: RunningMember, client: EtcdClient) -> None:
    before = Scraped(member)
    version = [("client-api-version", "3.7")]
    for i in range(40):
        put = pb.PutRequest(key=b"k%d" % (i % 4), value=b"0123456789")
        client.call("put", put, metadata=version)
    client.call("range", pb.RangeRequest(key=b"k1"))
    one = pb.RequestOp(request_put=pb.PutRequest(key=b"t", value=b"v"))
    two = pb.RequestOp(request_range=pb.RangeRequest(key=b"k1"))
    client.call("txn", pb.TxnRequest(success=[one, two]))
    deleted = client.call("delete_range", pb.DeleteRangeRequest(key=b"k", range_end=b"l"))
    lease = client.call("lease_grant", pb.LeaseGrantRequest(TTL=100))
    client.call("lease_revoke", pb.LeaseRevokeRequest(ID=lease.ID))
    with pytest.raises(RpcFailedError):
        client.call("range", pb.RangeRequest(key=b"k1", revision=1 << 40))
    client.call("hash_kv", pb.HashKVRequest())
    client.call("defragment", pb.DefragmentRequest())
    revision = deleted.header.revision
    client.call("compact", pb.CompactionRequest(revision=revision, physical=True))
    after = Scraped(member)

    def grown(name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return after.values[key] - before.values.get(key, 0.0)

    assert grown("etcd_mvcc_put_total") == 41
    assert grown("etcd_debugging_mvcc_total_put_size_in_bytes") == 40 * 12 + 2
    assert grown("etcd_mvcc_range_total") >= 2
    assert grown("etcd_mvcc_txn_total") == 1
    assert grown("etcd_mvcc_delete_total") == 4
    assert grown("etcd_debugging_lease_granted_total") == 1
    assert grown("etcd_debugging_lease_ttl_total_count") == 1
    assert grown("etcd_debugging_lease_ttl_total_sum") == 100
    assert grown("etcd_debugging_lease_revoked_total") == 1
    assert grown("etcd_mvcc_hash_rev_duration_seconds_count") == 1
    assert grown("etcd_disk_backend_defrag_duration_seconds_count") == 1
    assert grown("etcd_disk_wal_fsync_duration_seconds_count") >= 40
    assert grown("etcd_disk_wal_write_bytes_total") > 40 * 12
    assert grown("etcd_disk_backend_commit_duration_seconds_count") >= 1
    assert grown("etcd_debugging_mvcc_db_compaction_keys_total") == 40
    assert grown("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count") == 1
    # 46 rows, 10 in a step.
    assert grown("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_count") == 5
    assert abs(after.value("etcd_debugging_mvcc_db_compaction_last") - time.time()) < WITHIN_S
    assert after.value("etcd_debugging_mvcc_compact_revision") == revision
    assert grown("etcd_server_client_requests_total", type="unary", client_api_version="3.7") == 40
    labels = {
        "grpc_type": "unary",
        "grpc_service": "etcdserverpb.KV",
        "grpc_method": "Range",
        "grpc_code": "OutOfRange",
    }
    assert grown("grpc_server_handled_total", **labels) == 1


def test_watches_and_leases_of_dashboards_are_started_minus_handled(
    member: RunningMember, client: EtcdClient
) -> None:
    def active() -> float:
        scraped = Scraped(member)
        labels = {
            "grpc_type": "bidi_stream",
            "grpc_service": "etcdserverpb.Watch",
            "grpc_method": "Watch",
        }
        handled = sum(
            scraped.value("grpc_server_handled_total", **labels, grpc_code=code)
            for code in CODE_NAMES
        )
        return scraped.value("grpc_server_started_total", **labels) - handled

    assert active() == 0
    watch = client.watch()
    watch.create(b"k")
    assert watch.take().created
    assert active() == 1
    watch.close()
    deadline = time.monotonic() + WITHIN_S
    while active():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_stream_of_nonsense_is_a_failure_to_receive(
    member: RunningMember, client: EtcdClient
) -> None:
    watch = client.watch()
    watch.send(pb.PutRequest(key=b"\xff\xff"))  # no request to create a watcher
    with pytest.raises(RpcFailedError):
        watch.take()
    watch.close()
    failures = "etcd_network_server_stream_failures_total"
    assert Scraped(member).value(failures, Type="receive", API="watch") == 1


def test_expired_lease_is_counted(member: RunningMember, client: EtcdClient) -> None:
    client.call("lease_grant", pb.LeaseGrantRequest(TTL=1))
    deadline = time.monotonic() + WITHIN_S
    while Scraped(member).value("etcd_debugging_server_lease_expired_total") != 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_durations_and_process_metrics_are_labelled_as_real_etcds(
    member: RunningMember, client: EtcdClient
) -> None:
    """Labels in their order, buckets, types: of what both show after the same requests."""
    if "v3.7" not in str(judge_program("etcd")):
        pytest.skip("no real etcd 3.7: run `make judges`")
    with RunningMember("etcd") as real, EtcdClient(real.endpoint) as other:
        for one in (client, other):
            one.put(b"k", b"v")
            one.range(b"k")
            one.range(b"k", serializable=True)
            lease = one.call("lease_grant", pb.LeaseGrantRequest(TTL=60))
            one.call("lease_revoke", pb.LeaseRevokeRequest(ID=lease.ID))
        theirs, ours = Scraped(real), Scraped(member)
        names = [name for name in theirs.types if name.startswith(JUDGED)]
        assert len(names) >= 15
        assert {name: ours.types.get(name) for name in names} == {
            name: theirs.types[name] for name in names
        }
        shown = set(shapes(ours.text))
        missing = [shape for shape in shapes(theirs.text) if shape not in shown]
    assert missing == []


JUDGED: Final = (
    "etcd_server_apply_duration",
    "etcd_server_range_duration",
    "etcd_server_request_duration",
    "etcd_disk_wal_",
    "etcd_mvcc_db_open_read",
    "etcd_snap_db_",
    "process_",
)
AT_THE_START: Final = ("ClusterMemberAttrSet", "ClusterVersionSet")
"""Requests of the member itself, which nobody waits for here."""


def shapes(text: str) -> list[str]:
    """Return names, labels and bounds of what is judged, without its values."""
    return [
        line.rsplit(" ", 1)[0]
        for line in text.splitlines()
        if line.startswith(JUDGED) and not any(name in line for name in AT_THE_START)
    ]


def test_everything_that_real_etcd_shows_is_there_or_excused(
    member: RunningMember, client: EtcdClient
) -> None:
    """With the same kind, and the same labels where there are samples."""
    client.call("range", pb.RangeRequest(key=b"k1"))
    with urllib.request.urlopen(f"{member.client_url}/readyz", timeout=WITHIN_S) as answer:
        assert answer.status == 200
    time.sleep(0.6)  # scrapes in short order share a page
    shown = metrics_of(Scraped(member).text)
    wanted = {
        name: recorded
        for name, recorded in recorded_metrics().items()
        if not (name in METRICS_NOT_SHOWN or name.startswith(GO))
    }
    assert {name: shown.get(name) for name in wanted} == wanted
    assert set(METRICS_NOT_SHOWN) & set(shown) == set()
