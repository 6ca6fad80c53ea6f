"""What the tests of mixed clusters share: stored data of every kind, and proofs of a snapshot."""

from __future__ import annotations

import urllib.request
from typing import Final

from etcdtw.wire import etcdserverpb as pb
from tests.differential.operations import PUT
from tests.support.cluster_processes import Cluster, ClusterMember

# etcd keeps 5,000 entries behind a compaction of its log, whatever the flags say; a member that
# needs older ones is sent a snapshot.
CATCH_UP_ENTRIES: Final = 5_000
SNAPSHOT_FLAGS: Final = ("--snapshot-count", "100")
BURST: Final = 100


def store_all_kinds(cluster: Cluster, member: ClusterMember, tag: str) -> int:
    """Write puts, a txn, deletes, leases and a compaction through ``member``; a revision."""
    client = cluster.client(member)
    prefix = tag.encode()
    for i in range(20):
        client.put(prefix + b"/%d" % i, b"value %d of " % i + prefix)
    lease = client.invoke("lease_grant", TTL=3600)
    client.put(prefix + b"/leased", b"x", lease=lease.ID)
    puts = [
        pb.RequestOp(request_put=pb.PutRequest(key=prefix + b"/txn%d" % i, value=b"t"))
        for i in range(3)
    ]
    compare = pb.Compare(key=prefix + b"/0", target=pb.Compare.VERSION, version=1)
    assert client.invoke("txn", compare=[compare], success=puts).succeeded
    deleted = client.invoke("delete_range", key=prefix + b"/1", range_end=prefix + b"/2")
    assert deleted.deleted == 11
    gone = client.invoke("lease_grant", TTL=3600)
    client.put(prefix + b"/revoked", b"x", lease=gone.ID)
    revoked = client.invoke("lease_revoke", ID=gone.ID)
    client.invoke("compact", revision=revoked.header.revision - 5)
    return int(revoked.header.revision)


def store_many(cluster: Cluster, member: ClusterMember, count: int) -> None:
    """Put ``count`` small values, many under way at once."""
    client = cluster.wire_client(member, 60.0)
    try:
        for start in range(0, count, BURST):
            requests = [
                pb.PutRequest(key=b"many/%d" % (i % 500), value=b"%d" % i).SerializeToString()
                for i in range(start, min(start + BURST, count))
            ]
            streams = client.begin([(PUT, request) for request in requests])
            client.finish(streams)
            assert all(stream.code == 0 for stream in streams), streams[0].text
    finally:
        client.close()


def serves_all(cluster: Cluster, tag: str) -> None:
    """A write through each voter is read through each other one, linearizably."""
    for writer in cluster.serving:
        key = f"{tag}/through/{writer.name}".encode()
        put = cluster.client(writer).put(key, tag.encode())
        for reader in cluster.serving:
            found = cluster.client(reader).range(key)
            assert [kv.mod_revision for kv in found.kvs] == [put.header.revision], reader.name
    cluster.assert_equal()


def metric(member: ClusterMember, name: str) -> float:
    """Return the sum over the labels of one metric of a member without TLS."""
    with urllib.request.urlopen(f"{member.client_url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)]
    return sum(values)


def snapshots_sent(sender: ClusterMember, receiver: ClusterMember) -> float:
    """Return how many snapshots one sent the other, as the sender counts."""
    to = f'{{To="{receiver.member_id:x}"}}'
    return metric(sender, "etcd_network_snapshot_send_success" + to)
