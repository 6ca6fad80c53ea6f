"""How a member finds the founders of its cluster."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from twisted.internet.defer import Deferred, succeed

from etcdtw.cluster.discovery import DiscoveryError, Registration
from etcdtw.server.start.discovery import (
    BACKOFF_EXPONENT_MAX,
    Joining,
    find_by_srv,
    name_servers,
)
from etcdtw.server.start.registry import endpoint_url
from tests.config.configuring import configured

SIZE_KEY = "/_etcd/registry/t/_config/size"
MEMBERS = "/_etcd/registry/t/members"


class Registry:
    """A registry in memory; fails as often as it is told to."""

    def __init__(self, size: str | None = "2") -> None:
        self.keys: dict[str, tuple[bytes, int]] = {}
        self.revision = 1
        self.failures = 0
        self.waiting: list[tuple[int, Deferred[Sequence[Registration]]]] = []
        if size is not None:
            self.set(SIZE_KEY, size)

    def set(self, key: str, value: str) -> None:
        self.revision += 1
        self.keys[key] = (value.encode(), self.revision)
        waiting, self.waiting = self.waiting, []
        for _, deferred in waiting:
            deferred.callback([self._registration(key)])

    def _registration(self, key: str) -> Registration:
        value, revision = self.keys[key]
        return Registration(key.encode(), value, revision, revision)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("nobody is there")

    async def get(self, key: str, *, is_prefix: bool) -> tuple[Sequence[Registration], int]:
        self._fail()
        keys = [one for one in self.keys if one == key or (is_prefix and one.startswith(key))]
        return [self._registration(one) for one in keys], self.revision

    async def put(self, key: str, value: str) -> None:
        self._fail()
        self.set(key, value)

    async def next_after(self, prefix: str, revision: int) -> Sequence[Registration]:
        self._fail()
        newer = [k for k, (_, at) in self.keys.items() if at > revision and k.startswith(prefix)]
        if newer:
            return [self._registration(newer[0])]
        deferred: Deferred[Sequence[Registration]] = Deferred()
        self.waiting.append((revision, deferred))
        return await deferred


class Rig:
    """A member on its way through a registry."""

    def __init__(self, size: str | None = "2") -> None:
        self.registry = Registry(size)
        self.pauses: list[float] = []

    def join(self, number: int = 0xA, entry: str = "a=http://a:1") -> Deferred[str]:
        return Deferred.fromCoroutine(Joining(self.registry, "t", number, self._pause).join(entry))

    def _pause(self, seconds: float) -> Deferred[None]:
        self.pauses.append(seconds)
        return succeed(None)


def test_a_member_registers_and_waits_for_the_others() -> None:
    rig = Rig("3")
    joined = rig.join()
    assert rig.registry.keys[f"{MEMBERS}/a"][0] == b"a=http://a:1"
    rig.registry.set(f"{MEMBERS}/b", "b=http://b:1")
    assert not joined.called
    rig.registry.set(f"{MEMBERS}/x", "no member")
    rig.registry.set(f"{MEMBERS}/c", "c=http://c:1")
    assert joined.result == "a=http://a:1,b=http://b:1,c=http://c:1"
    assert rig.pauses == []


def test_who_comes_too_late_is_told_so() -> None:
    rig = Rig("1")
    rig.registry.set(f"{MEMBERS}/b", "b=http://b:1")
    joined = rig.join()
    joined.addErrback(lambda failure: str(failure.check(DiscoveryError) and failure.value))
    assert joined.result == "discovery: cluster is full"
    assert f"{MEMBERS}/a" not in rig.registry.keys


def test_who_registered_before_goes_on() -> None:
    rig = Rig("1")
    rig.registry.set(f"{MEMBERS}/a", "a=http://a:1")
    assert rig.join().result == "a=http://a:1"


@pytest.mark.parametrize(("size", "message"), [(None, "size key not found"), ("x", "is bad")])
def test_a_registry_without_a_size_ends_the_start(size: str | None, message: str) -> None:
    joined = Rig(size).join()
    joined.addErrback(lambda failure: str(failure.value))
    assert isinstance(joined.result, str)
    assert message in joined.result


def test_a_registry_that_cannot_be_reached_is_tried_for_ever_more_and_more_seldom() -> None:
    rig = Rig("1")
    rig.registry.failures = 11
    assert rig.join().result == "a=http://a:1"
    assert rig.pauses[:3] == [2, 4, 8]
    assert rig.pauses[-3:] == [1 << BACKOFF_EXPONENT_MAX] * 3


def test_a_watch_that_fails_begins_with_another_look() -> None:
    rig = Rig("2")
    joined = rig.join()
    ((_, waiting),) = rig.registry.waiting
    rig.registry.waiting.clear()
    rig.registry.set(f"{MEMBERS}/b", "b=http://b:1")
    waiting.errback(ConnectionError("lost"))
    assert joined.result == "a=http://a:1,b=http://b:1"


def test_name_servers_are_the_hosts_own() -> None:
    text = "# x\nsearch a.test\nnameserver 10.0.0.1\nnameserver fd00::1\noptions x\n"
    assert name_servers(text) == [("10.0.0.1", 53), ("fd00::1", 53)]
    assert name_servers("") == [("127.0.0.1", 53)]


@pytest.mark.parametrize(
    ("endpoint", "is_plain", "url"),
    [
        ("a:1", True, "http://a:1"),
        ("a:1", False, "https://a:1"),
        ("http://a:1", False, "http://a:1"),
    ],
)
def test_endpoints_may_be_addresses(endpoint: str, is_plain: bool, url: str) -> None:
    assert endpoint_url(endpoint, is_plain=is_plain) == url


ADDRESSES = {"a.x.test": ["10.0.0.1"], "b.x.test": ["10.0.0.2"], "c.x.test": ["10.0.0.3"]}


async def addresses(host: str) -> Sequence[str]:
    return ADDRESSES[host]


def test_records_of_both_services_name_the_founders() -> None:
    zone = {
        "_etcd-server._tcp.x.test": [("a.x.test", 1), ("b.x.test", 1), ("none.x.test", 1)],
        "_etcd-server-ssl._tcp.x.test": [("c.x.test", 2)],
    }

    async def records(name: str) -> Sequence[tuple[str, int]]:
        return zone[name]

    def found(domain: str) -> Deferred[str]:
        config = configured(
            "--name=b",
            "--initial-advertise-peer-urls=http://b.x.test:1",
            f"--discovery-srv={domain}",
        )
        assert config.discovery is not None
        return Deferred.fromCoroutine(find_by_srv(config, config.discovery, records, addresses))

    assert found("x.test").result == "0=https://c.x.test:2,0=http://a.x.test:1,b=http://b.x.test:1"
    nothing = found("y.test")
    nothing.addErrback(lambda failure: str(failure.check(DiscoveryError) and failure.value))
    assert "error querying DNS SRV records: lookup _etcd-server-ssl._tcp.y.test" in str(
        nothing.result
    )
