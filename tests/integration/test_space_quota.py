"""A member at its space quota: what it refuses, what it lets pass, and the way back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Final

import pytest

from etcdtw.wire import etcdserverpb as pb
from tests.support.cluster_processes import Cluster, wait_for
from tests.support.etcd_client import EtcdClient, RpcFailedError
from tests.support.etcdctl import Etcdctl
from tests.support.processes import RunningMember

QUOTA: Final = (f"--quota-backend-bytes={2 * 1024 * 1024}",)
ETCDS_WAY: Final = (
    "--quota-measure=allocated",
    "--quota-auto-disarm=false",
    "--quota-auto-compaction=0",
)
SMALL_QUOTA_BYTES: Final = 6 * 1024 * 1024
SMALL_QUOTA: Final = (f"--quota-backend-bytes={SMALL_QUOTA_BYTES}",)
AGE: Final = "--quota-auto-compaction=2s"
VALUE: Final = b"v" * 100_000
PUTS_MAX: Final = 100
"""Five times what fits."""
BURST_QUOTA_BYTES: Final = 8 * 1024 * 1024
BURST_QUOTA: Final = (f"--quota-backend-bytes={BURST_QUOTA_BYTES}",)
BURST_PUTS_MAX: Final = 200
WRITERS: Final = 8
WITHIN_S: Final = 15.0
NO_SPACE: Final = (8, "etcdserver: mvcc: database space exceeded")

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["etcd", "etcdtw"])
def strict(request: pytest.FixtureRequest) -> Iterator[RunningMember]:
    """A member that counts, and leaves things, as etcd does."""
    flags = ETCDS_WAY if request.param == "etcdtw" else []
    with RunningMember(request.param, flags=[*QUOTA, *flags]) as running:
        yield running


def refused(client: EtcdClient, name: str, request: object) -> tuple[int, str] | None:
    try:
        client.call(name, request)
    except RpcFailedError as error:
        return error.code, error.text
    return None


def fill(client: EtcdClient) -> None:
    """Put until there is no room."""
    outcome = None
    for _ in range(PUTS_MAX):
        outcome = refused(client, "put", pb.PutRequest(key=b"k", value=VALUE))
        if outcome is not None:
            break
    assert outcome == NO_SPACE


def empty(client: EtcdClient) -> None:
    """Delete everything, and compact what was."""
    deletion = client.call("delete_range", pb.DeleteRangeRequest(key=b"k"))
    assert deletion.deleted == 1
    client.invoke("compact", revision=deletion.header.revision, physical=True)


def see_what_is_refused(client: EtcdClient, lease_id: int) -> None:
    """At the quota what grows is refused, and what makes room or changes members passes."""
    assert refused(client, "put", pb.PutRequest(key=b"small", value=b"v")) == NO_SPACE
    assert refused(client, "lease_grant", pb.LeaseGrantRequest(TTL=60)) == NO_SPACE
    put = pb.RequestOp(request_put=pb.PutRequest(key=b"t", value=b"v"))
    assert refused(client, "txn", pb.TxnRequest(success=[put])) == NO_SPACE
    deletion = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"none"))
    assert refused(client, "txn", pb.TxnRequest(success=[deletion])) is None
    assert refused(client, "lease_revoke", pb.LeaseRevokeRequest(ID=lease_id)) is None
    added = client.invoke("member_add", peerURLs=["http://127.0.0.1:1"], isLearner=True)
    assert refused(client, "member_remove", pb.MemberRemoveRequest(ID=added.member.ID)) is None


def test_in_etcds_way_only_a_defragmentation_and_a_hand_end_it(strict: RunningMember) -> None:
    with EtcdClient(strict.endpoint) as client:
        lease_id = client.invoke("lease_grant", TTL=60).ID
        fill(client)
        await_alarm(client)
        see_what_is_refused(client, lease_id)
        empty(client)
        disarm(client)
        # The file is as large as it was.
        assert refused(client, "put", pb.PutRequest(key=b"k", value=VALUE)) == NO_SPACE
        await_alarm(client)
        client.invoke("defragment")
        disarm(client)
        assert refused(client, "put", pb.PutRequest(key=b"k", value=VALUE)) is None


def test_what_is_deleted_and_compacted_makes_room_and_the_alarm_ends_by_itself() -> None:
    with RunningMember("etcdtw", flags=QUOTA) as member, EtcdClient(member.endpoint) as client:
        lease_id = client.invoke("lease_grant", TTL=60).ID
        fill(client)
        await_alarm(client)
        see_what_is_refused(client, lease_id)
        assert "database space exceeded" in Etcdctl(member).run("put", "a", "b").stderr
        empty(client)
        await_alarm(client, is_there=False)
        assert refused(client, "put", pb.PutRequest(key=b"k", value=VALUE)) is None
        assert "clearing the alarm NOSPACE" in member.stderr()


def test_a_burst_does_not_pass_the_quota_and_a_writer_does_not_bring_the_alarm_back() -> None:
    with (
        RunningMember("etcdtw", flags=[*BURST_QUOTA, "--quota-auto-disarm=false"]) as member,
        EtcdClient(member.endpoint) as client,
        ThreadPoolExecutor(WRITERS) as pool,
    ):
        etcdctl = Etcdctl(member)
        passed = list(pool.map(partial(put_until_full, client), range(WRITERS)))
        # What is in use besides values is small, and the last values may not fit.
        assert BURST_QUOTA_BYTES // 2 < sum(passed) * len(VALUE) < BURST_QUOTA_BYTES
        await_alarm(client)

        is_over = Event()
        writing = pool.submit(write_on, client, is_over)
        try:
            deletion = client.call("delete_range", pb.DeleteRangeRequest(key=b"burst"))
            etcdctl.output("compact", str(deletion.header.revision))
            etcdctl.output("alarm", "disarm")
            time.sleep(1.0)
            assert etcdctl.output("alarm", "list").strip() == ""
        finally:
            is_over.set()
        assert writing.result() > 0


def test_history_goes_by_itself_when_most_of_the_quota_is_used() -> None:
    with Cluster(["etcdtw"] * 2, flags=[*SMALL_QUOTA, AGE]) as cluster:
        leader = cluster.leader()
        client = cluster.client(leader)
        first = put_most(client)
        wait_for(lambda: is_compacted(client, first), WITHIN_S, "the first revision is compacted")
        assert "four fifths of the quota are used" in leader.stderr()
        assert client.range(b"k").count == 1
        assert alarms(client) == []


def test_no_history_goes_by_itself_while_a_real_member_is_there() -> None:
    with Cluster(["etcdtw", "etcd"]) as cluster:
        ours, real = cluster.all
        cluster.stop(ours)
        ours.flags += [*SMALL_QUOTA, AGE]
        ours.start()
        if cluster.leader() is real:
            client = cluster.client(real)
            client.invoke("move_leader", targetID=cluster.status(ours).header.member_id)
            wait_for(lambda: cluster.leader_now() is ours, WITHIN_S, "ours leads")
        client = cluster.client(ours)
        first = put_most(client)
        refusal = "did not say to be etcdtw"
        wait_for(lambda: refusal in ours.stderr(), WITHIN_S, "the leader says why not")
        assert not is_compacted(client, first)


def put_most(client: EtcdClient) -> int:
    """Put over one key until most of the small quota is used; return the first revision."""
    revisions: list[int] = [
        client.put(b"k", VALUE).header.revision
        for _ in range(SMALL_QUOTA_BYTES * 85 // 100 // len(VALUE))
    ]
    return revisions[0]


def is_compacted(client: EtcdClient, revision: int) -> bool:
    outcome = refused(client, "range", pb.RangeRequest(key=b"k", revision=revision))
    return outcome is not None and "compacted" in outcome[1]


def put_until_full(client: EtcdClient, _: int) -> int:
    """Return how many puts passed."""
    request = pb.PutRequest(key=b"burst", value=VALUE)
    for passed in range(BURST_PUTS_MAX):
        if refused(client, "put", request) is not None:
            return passed
    return BURST_PUTS_MAX


def write_on(client: EtcdClient, is_over: Event) -> int:
    """Put small values whatever comes; return how many passed."""
    passed = 0
    while not is_over.wait(0.005):
        passed += refused(client, "put", pb.PutRequest(key=b"small", value=b"v")) is None
    return passed


def alarms(client: EtcdClient) -> list[int]:
    """Return which members NOSPACE is raised for."""
    found = client.invoke("alarm", alarm=pb.NOSPACE).alarms
    return [one.memberID for one in found]


def await_alarm(client: EtcdClient, *, is_there: bool = True) -> None:
    deadline = time.monotonic() + WITHIN_S
    while bool(alarms(client)) is not is_there:
        assert time.monotonic() < deadline, "no alarm" if is_there else "the alarm stays"
        time.sleep(0.05)


def disarm(client: EtcdClient) -> None:
    for member_id in alarms(client):
        action = pb.AlarmRequest.DEACTIVATE
        client.invoke("alarm", action=action, memberID=member_id, alarm=pb.NOSPACE)
