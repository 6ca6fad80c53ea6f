"""Members that find each other: in real etcd's registry, and in DNS."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any, cast

import pytest
from pytest_twisted import inlineCallbacks
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.names import dns
from twisted.names.error import DomainError
from twisted.names.server import DNSServerFactory

from etcdtw.server.start.discovery import records_of
from tests.support.judges import judge_program
from tests.support.processes import RunningMember

pytestmark = pytest.mark.integration

SERVICE = "_etcd-server._tcp.x.test"


class Founder(RunningMember):
    """A member that is told where a registry is, and of nobody else."""

    def __init__(self, program: str, name: str, registry: RunningMember, token: str) -> None:
        super().__init__(program)
        self._name = name
        self._flags = [f"--discovery-endpoints={registry.endpoint}", f"--discovery-token={token}"]

    def command(self) -> list[str]:
        words = super().command()
        at = words.index("--initial-cluster")
        del words[at : at + 2]
        words[words.index("--name") + 1] = self._name
        return [*words, *self._flags]


def etcdctl(member: RunningMember, *words: str) -> str:
    command = [str(judge_program("etcdctl")), f"--endpoints={member.endpoint}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.mark.parametrize("registry", ["etcd", "etcdtw"])
def test_members_of_both_kinds_found_a_cluster_through_a_registry(registry: str) -> None:
    programs = {"a": "etcdtw", "b": "etcd", "c": "etcdtw"}
    with ExitStack() as stack:
        kept = stack.enter_context(RunningMember(registry))
        etcdctl(kept, "put", "/_etcd/registry/t1/_config/size", "3")
        founders = [Founder(program, name, kept, "t1") for name, program in programs.items()]
        for one in founders:
            stack.callback(one.close)
            one.launch()
        for one in founders:
            one.wait_ready()
        members = json.loads(etcdctl(founders[0], "member", "list", "-w", "json"))["members"]
        assert sorted(one["name"] for one in members) == ["a", "b", "c"]
        etcdctl(founders[0], "put", "k", "v")
        assert etcdctl(founders[1], "get", "k").split() == ["k", "v"]
        late = Founder("etcdtw", "d", kept, "t1")
        stack.callback(late.close)
        late.launch()
        process = late._process
        assert process is not None
        assert process.wait(30) == 1
        assert "discovery: cluster is full" in late.stderr()
        founders[2].stop()
        founders[2].start()  # and asks nobody any more


class Zone:
    """A name server's one service."""

    def query(self, query: dns.Query, timeout: Any = None) -> Deferred[Any]:
        name = query.name.name.decode()
        if query.type != dns.SRV or name != SERVICE:
            return fail(DomainError(name))
        answers = [
            dns.RRHeader(name, dns.SRV, dns.IN, 60, dns.Record_SRV(priority, 0, port, host))
            for priority, port, host in ((2, 2, "b.x.test"), (1, 1, "a.x.test"))
        ]
        return succeed((answers, [], []))


@inlineCallbacks
def test_records_of_a_name_server_are_found() -> Generator[Any, Any, None]:
    factory = DNSServerFactory(clients=[Zone()])
    threads = cast(Any, reactor)
    port = threads.listenUDP(0, dns.DNSDatagramProtocol(factory), "127.0.0.1")
    try:
        records = records_of(reactor, [("127.0.0.1", port.getHost().port)])
        found = yield Deferred.fromCoroutine(cast(Any, records(SERVICE)))
        assert found == [("a.x.test", 1), ("b.x.test", 2)]
        with pytest.raises(DomainError):
            yield Deferred.fromCoroutine(cast(Any, records("_etcd-server-ssl._tcp.x.test")))
    finally:
        yield port.stopListening()
