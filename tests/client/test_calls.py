"""A member called from inside: awaitable methods over its real services, screen included."""

from __future__ import annotations

from typing import Any

import pytest

from etcdtw.client.calls import Calls, Streaming, Unary
from etcdtw.grpc.call import (
    INVALID_ARGUMENT,
    NOT_FOUND,
    OUT_OF_RANGE,
    UNAVAILABLE,
    StatusError,
)
from etcdtw.rpc.kv.sliced_reply import REPLY_AT_ONCE_MAX
from etcdtw.rpc.watch import OUTPUT_BYTES_MAX
from etcdtw.server.metrics.table import GRPC_METHODS
from etcdtw.wire import etcdserverpb as pb
from tests.client.loopback_rig import outcome
from tests.client.member_rig import MemberRig


@pytest.fixture
def rig() -> MemberRig:
    rig = MemberRig()
    rig.start()
    return rig


def create(key: bytes = b"k", **more: Any) -> pb.WatchRequest:
    return pb.WatchRequest(create_request=pb.WatchCreateRequest(key=key, **more))


def test_keys_are_put_read_compared_and_deleted(rig: MemberRig) -> None:
    calls = rig.calls

    async def work() -> None:
        assert (await calls.put(pb.PutRequest(key=b"k", value=b"1"))).header.revision == 2
        found = await calls.range(pb.RangeRequest(key=b"k"))
        assert [(one.key, one.value) for one in found.kvs] == [(b"k", b"1")]
        local = await calls.range(pb.RangeRequest(key=b"k", serializable=True))
        assert local == found
        put = pb.RequestOp(request_put=pb.PutRequest(key=b"k", value=b"2"))
        compare = pb.Compare(key=b"k", target=pb.Compare.VALUE, result=pb.Compare.EQUAL, value=b"1")
        txn = await calls.txn(pb.TxnRequest(compare=[compare], success=[put]))
        assert txn.succeeded
        assert (await calls.delete_range(pb.DeleteRangeRequest(key=b"k"))).deleted == 1
        await calls.compact(pb.CompactionRequest(revision=4))
        with pytest.raises(StatusError) as caught:
            await calls.range(pb.RangeRequest(key=b"k", revision=2))
        assert caught.value.code == OUT_OF_RANGE
        assert caught.value.message == ("etcdserver: mvcc: required revision has been compacted")

    rig.do(work())
    counted = {one.path.rpartition("/")[2]: sum(one.handled) for one in rig.stats.methods()}
    assert counted == {"Put": 1, "Range": 3, "Txn": 1, "DeleteRange": 1, "Compact": 1}


def test_refusals_are_those_that_clients_see(rig: MemberRig) -> None:
    assert outcome(rig.calls.put(pb.PutRequest())) == (
        INVALID_ARGUMENT,
        "etcdserver: key is not provided",
    )
    missing = rig.calls.lease_revoke(pb.LeaseRevokeRequest(ID=9))
    assert rig.wait(missing) == (NOT_FOUND, "etcdserver: requested lease not found")


def test_callers_are_screened() -> None:
    rig = MemberRig()  # not started: there is no leader
    metadata = ((b"hasleader", b"true"),)
    request = pb.RangeRequest(key=b"k")
    refused = (UNAVAILABLE, "etcdserver: no leader")
    assert outcome(rig.calls.range(request, metadata=metadata)) == refused
    assert outcome(rig.calls.watch(metadata=metadata).receive()) == refused


def test_leases_are_granted_renewed_looked_at_and_revoked(rig: MemberRig) -> None:
    calls = rig.calls

    async def work() -> None:
        lease = await calls.lease_grant(pb.LeaseGrantRequest(TTL=60))
        await calls.put(pb.PutRequest(key=b"k", lease=lease.ID))
        found = await calls.lease_time_to_live(pb.LeaseTimeToLiveRequest(ID=lease.ID, keys=True))
        assert (found.grantedTTL, list(found.keys)) == (60, [b"k"])
        alive = calls.lease_keep_alive(pb.LeaseKeepAliveRequest(ID=lease.ID))
        alive.half_close()
        assert [one.TTL async for one in alive] == [60]
        leases = await calls.lease_leases(pb.LeaseLeasesRequest())
        assert [one.ID for one in leases.leases] == [lease.ID]
        await calls.lease_revoke(pb.LeaseRevokeRequest(ID=lease.ID))
        assert (await calls.range(pb.RangeRequest(key=b"k"))).count == 0

    rig.do(work())


def test_events_come_to_who_awaits_them(rig: MemberRig) -> None:
    calls = rig.calls

    async def work() -> list[bytes]:
        watch = calls.watch(create())
        created = await watch.__anext__()
        assert created.created
        await calls.put(pb.PutRequest(key=b"k", value=b"1"))
        await calls.put(pb.PutRequest(key=b"k", value=b"2"))
        values = []
        async for response in watch:
            values += [event.kv.value for event in response.events]
            if len(values) == 2:
                watch.cancel()
                break
        return values

    assert rig.do(work()) == [b"1", b"2"]
    rig.run()
    assert not rig.loopback.ledger.calls
    assert rig.stats.unfinished_octets == 0


def test_a_watch_that_is_not_read_is_paused_and_goes_on_when_it_is(rig: MemberRig) -> None:
    watch = rig.calls.watch(create())
    rig.run()
    count, size = 64, 32_768
    for index in range(count):
        value = b"%d" % index + bytes(size)
        rig.wait(rig.calls.put(pb.PutRequest(key=b"k", value=value)))
    held = rig.loopback.ledger.untaken
    assert OUTPUT_BYTES_MAX < held < OUTPUT_BYTES_MAX + 4 * size

    async def read() -> list[bytes]:
        values: list[bytes] = []
        async for response in watch:
            values += [event.kv.value.rstrip(b"\0") for event in response.events]
            if len(values) == count:
                break
        return values

    assert rig.do(read()) == [b"%d" % index for index in range(count)]
    watch.cancel()


def fill(rig: MemberRig, count: int, size: int) -> None:
    for index in range(count):
        rig.wait(rig.calls.put(pb.PutRequest(key=b"%05d" % index, value=bytes(size))))


def test_a_large_range_comes_whole_in_parts_or_in_chunks(rig: MemberRig) -> None:
    count, size = 48, 65_536
    assert count * size > REPLY_AT_ONCE_MAX
    fill(rig, count, size)
    request = pb.RangeRequest(key=b"0", range_end=b"1")
    whole = rig.wait(rig.calls.range(request))
    assert len(whole.kvs) == count
    channel = rig.loopback.connect()

    async def parts() -> list[bytes]:
        stream = channel.unary_in_parts("/etcdserverpb.KV/Range", request.SerializeToString())
        found = []
        while (part := await stream.receive()) is not None:
            found.append(part)
        return found

    found = rig.do(parts())
    assert len(found) > 1
    assert pb.RangeResponse.FromString(b"".join(found)) == whole

    async def chunks() -> pb.RangeResponse:
        merged = pb.RangeResponse()
        async for chunk in rig.calls.range_stream(request):
            merged.MergeFrom(chunk.range_response)
        return merged

    assert rig.do(chunks()).kvs == whole.kvs


def test_each_channel_is_a_client_of_its_own_in_the_read_queue(rig: MemberRig) -> None:
    seen: list[object] = []
    rig.methods.add_unary("/test/Who", lambda call, message: seen.append(call.client))  # type: ignore[attr-defined]
    first, second = rig.loopback.connect(), rig.loopback.connect()
    for channel in (first, first, second):
        channel.unary("/test/Who", b"")
    assert seen[0] is seen[1]
    assert seen[0] is not seen[2]


def test_every_method_that_a_member_serves_has_a_line() -> None:
    lines = {
        line.path: line for line in vars(Calls).values() if isinstance(line, Unary | Streaming)
    }
    served = {
        f"/{service}/{method}": kind
        for kind, service, method in GRPC_METHODS
        if service.split(".")[-1] in ("KV", "Watch", "Lease", "Cluster", "Maintenance", "Auth")
    }
    assert set(lines) == set(served)
    for path, kind in served.items():
        line = lines[path]
        assert isinstance(line, Unary) is (kind == "unary"), path
        method = path.rpartition("/")[2]
        name = {"Compact": "Compaction", "RangeStream": "Range"}.get(method, method)
        if method.startswith(("User", "Role")):
            name = "Auth" + name
        assert line.request.__name__ == name + "Request"
        expected = "RangeStream" if method == "RangeStream" else name
        assert line.answer.__name__ == expected + "Response"
