"""However a stream ends, nothing of it stays: over real gRPC calls, way by way."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from etcdtw.grpc.message import frame_message
from etcdtw.grpc.server_call import StreamCall
from etcdtw.http2 import frames
from etcdtw.mvcc.watch.stream import Watcher, WatchStream
from etcdtw.rpc.lease.keep_alive import KeepAliveStream
from etcdtw.rpc.watch import WatchService, _WatchCall
from etcdtw.wire import etcdserverpb as pb
from tests.grpc.grpc_rig import ServerRig, request_fields
from tests.support.fake_facade import FakeFacade
from tests.support.lease_rig import LeaseRig
from tests.support.watch_rig import WatchRig

WATCH = "/etcdserverpb.Watch/Watch"
KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
TIMEOUT_S = 1.0


class Watches(WatchRig, FakeFacade):
    """The node that the Watch service asks."""

    store: Any

    def __init__(self, leases: LeaseRig) -> None:
        super().__init__()
        self._leases = leases
        self.clock = leases.clock

    @property
    def leader_id(self) -> int:
        return self._leases.leader_id


class Member:
    """The streaming services of a member, and one client's connection to them."""

    def __init__(self) -> None:
        self.leases = LeaseRig()
        self.watches = Watches(self.leases)
        self.watch_service = WatchService(self.watches, TIMEOUT_S)
        self.rig = ServerRig()
        self.watch_service.register(self.rig.methods)
        self.leases.service.register(self.rig.methods)

    def open(self, path: str, *messages: bytes) -> int:
        fields = dict(request_fields())
        fields |= {b":path": path.encode(), b"hasleader": b"true", b"grpc-timeout": b"5S"}
        stream_id = self.rig.begin("", fields=tuple(fields.items()))
        self.rig.data(stream_id, b"".join(map(frame_message, messages)))
        return stream_id

    def open_watch(self) -> int:
        """A stream with a live watcher, one that catches up and one whose history is gone."""
        for _ in range(5):
            self.watches.put(b"k")
        self.watches.store.compact(3)
        creates = [
            pb.WatchCreateRequest(key=b"k", progress_notify=True),
            pb.WatchCreateRequest(key=b"k", start_revision=2),
            pb.WatchCreateRequest(key=b"k", start_revision=4),
        ]
        requests = [pb.WatchRequest(create_request=create) for create in creates]
        stream_id = self.open(WATCH, *[request.SerializeToString() for request in requests])
        assert (self.watches.hub.watchers, self.watches.hub.streams) == (3, 1)
        return stream_id

    def open_renewals(self) -> int:
        """A stream that waits for the revoke of an expired lease."""
        lessor = self.leases.lessor
        lessor.grant(1, 2)
        self.leases.clock.advance(3)
        requests = [pb.LeaseKeepAliveRequest(ID=lease_id) for lease_id in (1, 7)]
        stream_id = self.open(KEEP_ALIVE, *[r.SerializeToString() for r in requests])
        assert lessor._waiting
        return stream_id

    def open_renewals_without_primary(self) -> int:
        """A stream that looks again and again if this member leads."""
        self.leases.lessor.demote()
        return self.open(KEEP_ALIVE, pb.LeaseKeepAliveRequest(ID=1).SerializeToString())

    def held(self) -> dict[str, object]:
        """What is held for streams anywhere; empty: nothing is."""
        hub = self.watches.hub
        register = self.rig.server._register
        held = {
            "streams": hub.streams,
            "watchers": hub.watchers,
            "slow watchers": hub.slow_watchers,
            "unsynced": len(hub._unsynced),
            "progress": len(hub.progress._streams),
            "collecting": self.watches.store.has_watchers,
            "live": len(hub._index.matching(b"k")),
            "calls": self.rig.server.open_calls,
            "resets": len(register.to_reset),
            "unfinished": self.rig.stats.unfinished_octets,
            "http2": self.rig.server_http2.open_streams,
            "waiting for revokes": len(self.leases.lessor._waiting),
            "timers": len(self.leases.clock.getDelayedCalls()),
            "leader, watch": len(self.watch_service._leader_loss._streams),
            "leader, lease": len(self.leases.service._leader_loss._streams),
        }
        return {name: value for name, value in held.items() if value}


def alive() -> int:
    """How many objects there are that stand for a stream."""
    kinds = {StreamCall, WatchStream, Watcher, _WatchCall, KeepAliveStream}
    return sum([type(found) in kinds for found in gc.get_objects()])


def reset(member: Member, stream_id: int) -> None:
    member.rig.client.reset(stream_id, 8)
    member.rig.pump()


def lose(member: Member, stream_id: int) -> None:
    member.rig.server_http2.close()
    member.rig.server.connection_lost()


def breach(member: Member, stream_id: int) -> None:
    """The whole connection ends by a frame that may not come."""
    member.rig.server.receive(frames.encode_window_update(0, 0), member.rig.now_ms)


def overdue(member: Member, stream_id: int) -> None:
    member.rig.server.expire(member.rig.now_ms + 5_000)
    member.rig.pump()


def cut_short(member: Member, stream_id: int) -> None:
    member.rig.data(stream_id, b"\0\0\0\0\2x", True)


def compressed(member: Member, stream_id: int) -> None:
    member.rig.data(stream_id, b"\1\0\0\0\1x")


def too_large(member: Member, stream_id: int) -> None:
    member.rig.data(stream_id, b"\0\xff\xff\xff\xff")


def nonsense(member: Member, stream_id: int) -> None:
    member.rig.data(stream_id, frame_message(b"\xff"))


def bad_trailers(member: Member, stream_id: int) -> None:
    member.rig.client.send_trailers(stream_id, ((b"connection", b"close"),))
    member.rig.pump()


def no_leader(member: Member, stream_id: int) -> None:
    member.leases.leader_id = 0
    for _ in range(3):
        member.leases.clock.advance(TIMEOUT_S)
    member.rig.pump()


@pytest.mark.parametrize(
    "end",
    [
        reset,
        lose,
        breach,
        overdue,
        cut_short,
        compressed,
        too_large,
        nonsense,
        bad_trailers,
        no_leader,
    ],
)
@pytest.mark.parametrize(
    "begin", [Member.open_watch, Member.open_renewals, Member.open_renewals_without_primary]
)
def test_nothing_stays_of_a_stream_however_it_ends(
    begin: Callable[[Member], int], end: Callable[[Member, int], None]
) -> None:
    gc.disable()
    try:
        member = Member()
        before = alive()
        stream_id = begin(member)
        assert member.held()
        end(member, stream_id)
        assert member.held() == {}
        # Nor is anything left to the garbage collector: calls are too many for that.
        assert alive() == before
    finally:
        gc.enable()
