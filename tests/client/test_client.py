"""The client as a whole, with servers in memory."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from etcdtw.client.client import Client, ClientTls
from etcdtw.grpc.call import CANCELLED
from etcdtw.transport.tls.files import TlsError
from etcdtw.wire import etcdserverpb as pb
from tests.client.network.network_rig import FakeServer, NetworkRig, result_of
from tests.support.certs import Authority


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


def test_a_client_closes_itself_behind_a_block_and_watches_locks_and_campaigns() -> None:
    rig = WholeRig()

    async def story() -> str:
        async with rig.client as client:
            client.lock("l")
            client.election("e")
            return "done"

    told = Deferred.fromCoroutine(story())
    rig.pump()
    assert result_of(told) == "done"


def test_files_of_certificates_are_read_when_the_client_is_made(tmp_path: Path) -> None:
    with pytest.raises(TlsError):
        Client(Clock(), "https://etcd1:2379", tls=ClientTls(trusted_ca_file=str(tmp_path / "no")))
    authority = Authority(tmp_path)
    tls = ClientTls(trusted_ca_file=authority.ca_file)
    client = Client(Clock(), ["https://10.0.0.1:2379", "https://10.0.0.2:2379"], tls=tls)
    assert client.close().called
