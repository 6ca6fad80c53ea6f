"""The client as a whole, with servers in memory."""

from __future__ import annotations

import random
from typing import Any

from etcdtw.client.client import Client
from etcdtw.grpc.call import CANCELLED
from etcdtw.wire import etcdserverpb as pb
from tests.client.network.network_rig import FakeServer, NetworkRig, result_of


class Etcd(FakeServer):
    """Answers puts."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.methods.add_unary("/etcdserverpb.KV/Put", self._put)
        self.methods.add_bidi_stream("/etcdserverpb.Watch/Watch", self._both)

    def _put(self, call: Any, message: bytes) -> bytes:
        self.seen.append(pb.PutRequest.FromString(message).key)
        return pb.PutResponse(header=pb.ResponseHeader(revision=7)).SerializeToString()


class WholeRig(NetworkRig):
    """A `Client` of three servers."""

    def __init__(self) -> None:
        super().__init__()
        self.servers = [Etcd(f"s{number}") for number in range(3)]
        self.client = Client(self.clock, self.servers, seeded=random.Random(1))


def test_a_client_goes_round_its_servers() -> None:
    rig = WholeRig()
    rig.client.put("settle", "")
    rig.pump()
    for server in rig.servers:
        server.seen.clear()
    answers = [rig.client.put(f"k{number}", "v") for number in range(6)]
    rig.pump()
    assert [result_of(answer).header.revision for answer in answers] == [7] * 6
    assert [len(server.seen) for server in rig.servers] == [2, 2, 2]


def test_a_client_of_one_of_them_asks_no_other() -> None:
    rig = WholeRig()
    only = rig.client.only(rig.servers[1])
    answers = [only.put("k", "v") for _ in range(3)]
    rig.pump()
    assert all(answer.called for answer in answers)
    assert [len(server.seen) for server in rig.servers] == [0, 3, 0]


def test_closing_a_client_leaves_nothing() -> None:
    rig = WholeRig()
    only = rig.client.only(rig.servers[0])
    for client in (rig.client, only):
        client.put("k", "v")
    watch = rig.client.watch("k")
    waiting = watch.receive()
    rig.pump()
    closed = rig.client.close()
    rig.pump()
    assert closed.called
    assert result_of(waiting).code == CANCELLED
    assert sum(server.open_links for server in rig.servers) == 0
    assert rig.clock.getDelayedCalls() == []
