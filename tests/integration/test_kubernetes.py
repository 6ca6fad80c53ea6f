"""What Kubernetes 1.37 asks of etcd: kubeadm's flags and probes, and the API server's requests.

Each test runs on real etcd and on ours.  Facts: kubeadm's manifest of a stacked etcd; the API
server's `storage/etcd3` (KEP-5966 for RangeStream, KEP-3157 for WatchList, KEP-2340 for reads from
its cache) and etcd's own `client/v3/kubernetes`.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, Final

import pytest

from etcdtw.wire import etcdserverpb as pb
from tests.support.cluster_processes import Cluster
from tests.support.etcd_client import EtcdClient, RpcFailedError, WatchCall
from tests.support.judges import judge_version
from tests.support.ports import free_port

PODS: Final = b"/registry/pods/"
PODS_END: Final = b"/registry/pods0"
COMPACT_KEY: Final = b"compact_rev_key"
REQUIRE_LEADER: Final = (("hasleader", "true"),)
CONTINUED: Final = b"\0"
"""What the API server puts behind the last key of a page."""
PROGRESS_S: Final = 1
"""Between progress notifications; kubeadm says 5, for which a test would wait."""
SLACK_S: Final = 10.0
NO_WATCH: Final = -1
OUT_OF_RANGE: Final = 11
FAILED_PRECONDITION: Final = 9
COMPACTED: Final = (OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
PAGE: Final = 500

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(judge_version() < (3, 7, 0), reason="real etcd 3.7: `make judges`"),
]


def kubeadm_flags(metrics_port: int) -> list[str]:
    """Return what kubeadm 1.37 gives beside names, addresses and certificates."""
    return [
        "--feature-gates=InitialCorruptCheck=true",
        f"--listen-metrics-urls=http://127.0.0.1:{metrics_port}",
        "--snapshot-count=10000",
        f"--watch-progress-notify-interval={PROGRESS_S}s",
    ]


class Control:
    """A control plane of one node: its etcd, a client, and where the kubelet probes it."""

    def __init__(self, cluster: Cluster, metrics_port: int) -> None:
        self.cluster = cluster
        self.member = cluster.all[0]
        self.metrics_port = metrics_port
        self.client: EtcdClient = cluster.client(self.member)

    def probe(self, path: str) -> int:
        return probe(self.metrics_port, path)

    # What the API server's client does.

    def create(self, key: bytes, value: bytes, lease_id: int = 0) -> Any:
        return self.update(key, value, 0, lease_id)

    def update(self, key: bytes, value: bytes, revision: int, lease_id: int = 0) -> Any:
        """Put if nobody has since ``revision``; whoever fails hears what is there."""
        put = pb.PutRequest(key=key, value=value, lease=lease_id)
        return self._guarded(key, revision, pb.RequestOp(request_put=put))

    def delete(self, key: bytes, revision: int) -> Any:
        deletion = pb.DeleteRangeRequest(key=key)
        return self._guarded(key, revision, pb.RequestOp(request_delete_range=deletion))

    def _guarded(self, key: bytes, revision: int, change: Any) -> Any:
        compare = pb.Compare(
            key=key, target=pb.Compare.MOD, result=pb.Compare.EQUAL, mod_revision=revision
        )
        get = pb.RequestOp(request_range=pb.RangeRequest(key=key))
        return self.client.invoke("txn", compare=[compare], success=[change], failure=[get])

    def range(self, start: bytes = PODS, **fields: Any) -> Any:
        return self.client.range(start, PODS_END, **fields)

    def stream(self, start: bytes = PODS, **fields: Any) -> list[Any]:
        request = pb.RangeRequest(key=start, range_end=PODS_END, **fields)
        return self.client.range_stream(request, REQUIRE_LEADER)

    def compact(self, version: int, revision: int) -> tuple[int, int]:
        """Compact as one of several API servers; return the key's version and the revision."""
        compare = pb.Compare(
            key=COMPACT_KEY, target=pb.Compare.VERSION, result=pb.Compare.EQUAL, version=version
        )
        put = pb.PutRequest(key=COMPACT_KEY, value=str(revision).encode())
        get = pb.RangeRequest(key=COMPACT_KEY)
        answer = self.client.invoke(
            "txn",
            compare=[compare],
            success=[pb.RequestOp(request_put=put)],
            failure=[pb.RequestOp(request_range=get)],
        )
        if not answer.succeeded:
            return answer.responses[0].response_range.kvs[0].version, answer.header.revision
        if revision:
            self.client.invoke("compact", revision=revision)
        return version + 1, answer.header.revision

    def watch(self, revision: int, **options: Any) -> WatchCall:
        """Watch what comes after ``revision``, as the watch cache does."""
        call = self.client.watch(REQUIRE_LEADER)
        call.create(
            PODS,
            range_end=PODS_END,
            start_revision=revision + 1,
            prev_kv=True,
            progress_notify=True,
            **options,
        )
        return call


def probe(port: int, path: str) -> int:
    """Return the status that a probe of the kubelet gets; 0: nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=SLACK_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.fixture(scope="module", params=["etcd", "etcdtw"])
def plane(request: pytest.FixtureRequest) -> Iterator[Control]:
    port = free_port()
    with Cluster([request.param], flags=kubeadm_flags(port), tls=True) as cluster:
        yield Control(cluster, port)
        cluster.check_logs()


@pytest.fixture
def control(plane: Control) -> Control:
    """The same for all tests, without pods."""
    plane.client.invoke("delete_range", key=PODS, range_end=PODS_END)
    return plane


def pods(control: Control, count: int, size: int = 100) -> int:
    """Create pods; return the newest revision."""
    ops = [
        pb.RequestOp(request_put=pb.PutRequest(key=pod(i), value=b"%d" % i * size))
        for i in range(count)
    ]
    revision = 0
    for first in range(0, count, 100):
        revision = control.client.invoke("txn", success=ops[first : first + 100]).header.revision
    return revision


def pod(number: int) -> bytes:
    return PODS + b"default/pod-%05d" % number


def merged(parts: list[Any]) -> Any:
    """Return the RangeResponse that a client makes of a stream."""
    whole = pb.RangeResponse()
    for part in parts:
        whole.MergeFrom(part)
    return whole


def refused(action: Any, *arguments: Any, **fields: Any) -> tuple[int, str]:
    with pytest.raises(RpcFailedError) as failure:
        action(*arguments, **fields)
    return failure.value.code, failure.value.text


def test_the_kubelets_probes_find_it_alive_and_ready(control: Control) -> None:
    assert [control.probe(path) for path in ("/livez", "/readyz", "/health")] == [200, 200, 200]
    # The API server's own probe of etcd.
    assert control.client.range(b"health").count == 0


@pytest.mark.long  # seconds of waiting: the check reads, and gives up as a request does
@pytest.mark.parametrize("program", ["etcd", "etcdtw"])
def test_a_member_that_waits_for_others_is_alive_and_not_ready(program: str) -> None:
    port = free_port()
    cluster = Cluster([program, program], flags=kubeadm_flags(port))
    alone = cluster.all[0]
    try:
        alone.launch()
        until_s = time.monotonic() + SLACK_S
        while probe(port, "/livez") != 200 and time.monotonic() < until_s:
            time.sleep(0.05)
        assert [probe(port, path) for path in ("/livez", "/readyz")] == [200, 503]
    finally:
        cluster.close()


def test_an_update_holds_against_the_revision_it_was_made_from(control: Control) -> None:
    created = control.create(pod(1), b"a")
    assert created.succeeded
    again = control.create(pod(1), b"b")
    there = again.responses[0].response_range.kvs[0]
    assert (again.succeeded, there.value) == (False, b"a")
    assert there.mod_revision == created.header.revision
    updated = control.update(pod(1), b"c", there.mod_revision)
    assert updated.succeeded
    assert not control.delete(pod(1), there.mod_revision).succeeded
    assert control.delete(pod(1), updated.header.revision).succeeded
    # Of what is not there the failure branch tells nothing.
    missing = control.delete(pod(1), updated.header.revision)
    assert (missing.succeeded, len(missing.responses[0].response_range.kvs)) == (False, 0)


def test_pages_are_of_one_revision_and_say_how_many_are_left(control: Control) -> None:
    revision = pods(control, 1200)
    first = control.range(limit=PAGE)
    assert (first.header.revision, len(first.kvs), first.more, first.count) == (
        revision,
        PAGE,
        True,
        1200,
    )
    control.create(pod(5000), b"later")
    start = first.kvs[-1].key + CONTINUED
    second = control.range(start, limit=PAGE, revision=revision)
    assert (second.count, second.more, second.header.revision) == (700, True, revision + 1)
    start = second.kvs[-1].key + CONTINUED
    third = control.range(start, limit=PAGE, revision=revision)
    assert (third.count, third.more, len(third.kvs)) == (200, False, 200)
    keys = [kv.key for page in (first, second, third) for kv in page.kvs]
    assert keys == [pod(i) for i in range(1200)]


def test_a_whole_list_comes_as_a_stream_that_merges_into_the_range(control: Control) -> None:
    revision = pods(control, 1200, size=1000)
    parts = control.stream()
    assert len(parts) > 1
    # The header, by which the API server knows the revision, comes with the last part.
    assert [part.HasField("header") for part in parts] == [False] * (len(parts) - 1) + [True]
    whole, range_ = merged(parts), control.range()
    assert whole.header.revision == revision
    whole.header.CopyFrom(range_.header)
    assert whole == range_


def test_a_stream_of_a_page_goes_on_where_the_one_before_ended(control: Control) -> None:
    revision = pods(control, 1200)
    control.create(pod(5000), b"later")
    start, keys = PODS, []
    for is_last in (False, False, True):
        page = merged(control.stream(start, limit=PAGE, revision=revision))
        assert page.more is not is_last
        assert page.header.revision == revision + 1
        keys += [kv.key for kv in page.kvs]
        start = page.kvs[-1].key + CONTINUED
    assert keys == [pod(i) for i in range(1200)]


def test_an_empty_stream_tells_the_revision(control: Control) -> None:
    (only,) = control.stream()
    assert (only.count, only.more, len(only.kvs)) == (0, False, 0)
    assert only.header.revision == control.range().header.revision


def test_sizes_are_estimated_from_keys_alone(control: Control) -> None:
    pods(control, 300, size=1000)
    listed = control.range(keys_only=True)
    assert [kv.key for kv in listed.kvs] == [pod(i) for i in range(300)]
    assert {kv.value for kv in listed.kvs} == {b""}
    streamed = merged(control.stream(keys_only=True))
    assert streamed.kvs == listed.kvs
    assert control.range(count_only=True).count == 300
    status = control.client.invoke("status")
    assert status.dbSize >= status.dbSizeInUse > 0
    # By this the API server knows what it may ask for.
    assert tuple(int(part) for part in status.version.split(".")[:2]) >= (3, 7)


def test_several_servers_compact_in_turns(control: Control) -> None:
    old = pods(control, 10)
    known = control.client.range(COMPACT_KEY)
    version = known.kvs[0].version if known.kvs else 0
    # Two servers start; the first is at it, the second sees that and waits.
    version_1, revision_1 = control.compact(version, 0)
    version_2, revision_2 = control.compact(version, 0)
    assert (version_1, version_2) == (version + 1, version + 1)
    control.create(pod(100), b"v")
    assert revision_2 == revision_1
    version_1, _ = control.compact(version_1, revision_1)
    assert control.compact(version_2, revision_2)[0] == version_1 == version + 2
    # What was listed before is gone: the API server answers 410 and its client lists anew.
    assert refused(control.range, revision=old) == COMPACTED
    assert refused(control.stream, revision=old) == COMPACTED
    assert control.range(revision=revision_1).count == 10
    watching = control.watch(old - 1)
    try:
        assert watching.take().created
        answer = watching.take()
        assert (answer.canceled, answer.compact_revision) == (True, revision_1)
    finally:
        watching.close()


def test_the_watch_cache_lists_and_goes_on_from_there(control: Control) -> None:
    pods(control, 20)
    listed = merged(control.stream())
    watching = control.watch(listed.header.revision)
    try:
        created = watching.take()
        assert (created.created, len(created.events)) == (True, 0)
        updated = control.update(pod(3), b"new", listed.kvs[3].mod_revision)
        deleted = control.delete(pod(4), listed.kvs[4].mod_revision)
        events = watching.take_events(2)
        assert [event.type for event in events] == [0, 1]
        # A deleted object is told whole, and with the revision of its deletion.
        assert events[0].prev_kv.value == listed.kvs[3].value
        assert events[0].kv.mod_revision == updated.header.revision
        assert events[1].prev_kv.value == listed.kvs[4].value
        assert events[1].kv.mod_revision == deleted.header.revision
        # Nothing happens: a bookmark comes within two intervals.
        bookmark = watching.take(PROGRESS_S + SLACK_S)
        assert (bookmark.watch_id, len(bookmark.events)) == (created.watch_id, 0)
        assert bookmark.header.revision == deleted.header.revision
    finally:
        watching.close()


def test_watch_list_knows_by_a_progress_request_that_it_has_seen_all(control: Control) -> None:
    pods(control, 20)
    listed = merged(control.stream())
    watching = control.watch(listed.header.revision)
    try:
        watching.take()
        # Another resource moves the revision; the watched one has no event to tell it by.
        control.client.put(b"/registry/nodes/n", b"v")
        newest = control.client.range(PODS, limit=1).header.revision
        watching.send(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
        told = watching.take()
        assert (told.watch_id, len(told.events)) == (NO_WATCH, 0)
        assert told.header.revision >= newest > listed.header.revision
    finally:
        watching.close()


def test_events_of_kubernetes_live_as_long_as_their_lease(control: Control) -> None:
    lease_id = control.client.invoke("lease_grant", TTL=2).ID
    revision = control.range().header.revision
    watching = control.watch(revision)
    try:
        watching.take()
        created = control.create(pod(1), b"event", lease_id)
        kept = control.range().kvs[0]
        assert (kept.lease, kept.mod_revision) == (lease_id, created.header.revision)
        events = watching.take_events(2, timeout_s=SLACK_S)
        assert [event.type for event in events] == [0, 1]
        assert events[1].prev_kv.value == b"event"
    finally:
        watching.close()


def test_kubeadm_adds_a_learner_and_takes_it_back(control: Control) -> None:
    client = control.client
    added = client.invoke("member_add", peerURLs=["https://127.0.0.1:1"], isLearner=True)
    listed = client.invoke("member_list", linearizable=True).members
    assert [one.isLearner for one in listed] == [one.ID == added.member.ID for one in listed]
    assert refused(client.invoke, "member_promote", ID=added.member.ID) == (
        FAILED_PRECONDITION,
        "etcdserver: can only promote a learner member which is in sync with leader",
    )
    client.invoke("member_remove", ID=added.member.ID)
    assert len(client.invoke("member_list", linearizable=True).members) == 1
    assert len(client.invoke("alarm").alarms) == 0
