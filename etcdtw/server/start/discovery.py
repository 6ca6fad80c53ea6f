"""Finds the founders of a new cluster: in another cluster's registry, or by DNS SRV records.

    size known --> has a place --> registered --> all others registered --> founders
        |              |full           |fails: again, after up to 256 s
        bad, missing   the start fails

Once a member has its identity nothing of this is asked any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from etcdtw.cluster.discovery import (
    CLUSTER_IS_FULL,
    SERVICES,
    DiscoveryError,
    Registration,
    Roll,
    SrvFounders,
    SrvTarget,
    member_key,
    members_prefix,
    own_addresses,
    parse_size,
    size_key,
    srv_name,
)
from etcdtw.cluster.ids import member_id
from etcdtw.cluster.initial_cluster import parse_initial_cluster
from etcdtw.config.config import Config
from etcdtw.config.discovery import Discovery
from etcdtw.transport.name_lookup import SystemLookup

BACKOFF_EXPONENT_MAX: Final = 8
"""So often the pause doubles, from 2 s on; tries have no end, as with etcd."""
RESOLV_CONF: Final = Path("/etc/resolv.conf")
DNS_PORT: Final = 53
SRV_TIMEOUTS_S: Final = (1, 3, 5)
log = Logger()


class Registry(Protocol):
    """The cluster that keeps the registry.  Every method fails with what its client says."""

    async def get(self, key: str, *, is_prefix: bool) -> tuple[Sequence[Registration], int]:
        """Return the keys, and the revision as of which they are these."""
        ...

    async def put(self, key: str, value: str) -> None: ...

    async def next_after(self, prefix: str, revision: int) -> Sequence[Registration]:
        """Wait for what is put next after ``revision``; what follows comes next time."""
        ...


class Joining:
    """One member's way through a registry."""

    def __init__(
        self,
        registry: Registry,
        token: str,
        number: int,
        pause: Callable[[float], Awaitable[object]],
    ) -> None:
        """``number``: the id that this member would have as the only founder."""
        self._registry = registry
        self._token = token
        self._key = member_key(token, number)
        self._pause = pause
        self._tries = 0

    async def join(self, entry: str) -> str:
        """Register ``entry`` (name=url,...), return all founders.  Raises `DiscoveryError`."""
        await self._until_done("cluster status check", self._look)
        await self._until_done("register member itself", lambda: self._register(entry))
        size, roll, revision = await self._until_done("cluster status check", self._look)
        prefix = members_prefix(self._token)
        log.info("waiting for peers from discovery service", clusterSize=size, found=len(roll))
        while len(roll) < size:
            try:
                fresh = await self._registry.next_after(prefix, revision)
            except Exception as error:
                log.warn("the registry is asked again: {error}", error=str(error))
                size, roll, revision = await self._until_done("cluster status check", self._look)
                continue
            for one in fresh:
                self._add(roll, one)
                revision = max(revision, one.mod_revision)
        founders: str = roll.initial_cluster(size)
        log.info("discovery joined cluster successfully", cluster=founders)
        return founders

    async def _look(self) -> tuple[int, Roll, int]:
        found, _ = await self._registry.get(size_key(self._token), is_prefix=False)
        size = parse_size(found[0].value if found else None)
        members, revision = await self._registry.get(members_prefix(self._token), is_prefix=True)
        roll = Roll()
        for one in members:
            self._add(roll, one)
        if not roll.has_place(self._key, size):
            raise DiscoveryError(CLUSTER_IS_FULL)
        return size, roll, revision

    async def _register(self, entry: str) -> None:
        await self._registry.put(self._key, entry)
        log.info("register member itself successfully", memberKey=self._key, memberInfo=entry)

    def _add(self, roll: Roll, one: Registration) -> None:
        fault = roll.add(one.key, one.value, one.create_revision)
        if fault:
            log.warn("{fault}", fault=fault, memberKey=one.key, memberInfo=one.value)
        else:
            log.info("found peer from discovery service", memberKey=one.key, memberInfo=one.value)

    async def _until_done(self, step: str, do: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                done = await do()
            except DiscoveryError:
                raise
            except Exception as error:
                self._tries = min(self._tries + 1, BACKOFF_EXPONENT_MAX)
                log.warn(
                    "retry connecting to discovery service",
                    reason=step,
                    error=str(error),
                    backoff=f"{1 << self._tries}s",
                )
                await self._pause(1 << self._tries)
            else:
                self._tries = 0
                return done


Addresses = Callable[[str], Awaitable[Sequence[str]]]
"""Returns the addresses of a host; fails when there are none."""
Records = Callable[[str], Awaitable[Sequence[tuple[str, int]]]]
"""Returns host and port of each SRV record of a name; fails when there are none."""


async def find_by_srv(
    config: Config, discovery: Discovery, records: Records, addresses: Addresses
) -> str:
    """Return the founders that DNS names.  Raises `DiscoveryError`."""

    async def known(host: str) -> Sequence[str]:
        try:
            return await addresses(host.rstrip("."))
        except Exception as error:
            log.warn("{host} has no address: {error}", host=host, error=str(error))
            return ()

    urls = config.initial_advertise_peer_urls
    hosts = {url.host for url in urls if not url.is_unix}
    own = own_addresses(urls, {host: await known(host) for host in hosts})
    founders = SrvFounders(config.name, own)
    for scheme, service in SERVICES:
        name = srv_name(service, discovery.srv_suffix, discovery.srv_domain)
        try:
            found = await records(name)
        except Exception as error:
            founders.faults.append(f"lookup {name}: {error}")
            continue
        targets = [SrvTarget(host, port, tuple(await known(host))) for host, port in found]
        founders.add(scheme, targets)
    for fault in founders.faults:
        log.warn("{fault}", fault=fault)
    text = founders.initial_cluster()
    log.info("got bootstrap from DNS for etcd-server", node=text)
    return text


async def discovered(reactor: object, lookup: SystemLookup, config: Config) -> Config:
    """Return the configuration with the founders named.  Raises `DiscoveryError`."""
    discovery = config.discovery
    assert discovery is not None, "the founders are named"
    urls = config.initial_advertise_peer_urls
    if discovery.srv_domain:
        records = records_of(reactor, name_servers(RESOLV_CONF.read_text("utf-8")))
        text = await find_by_srv(config, discovery, records, lookup.addresses_of)
        # Its records say which URLs make its id; etcd compares what they resolve to.
        own = parse_initial_cluster(text)[config.name]
        return replace(config, initial_cluster=text, initial_advertise_peer_urls=own)
    number = member_id(tuple(sorted(urls, key=str)), discovery.token)
    clock = cast(IReactorTime, reactor)

    def pause(seconds: float) -> Deferred[None]:
        return deferLater(clock, seconds)

    registry = open_registry(reactor, discovery)
    try:
        joining = Joining(registry, discovery.token, number, pause)
        text = await joining.join(",".join(f"{config.name}={url}" for url in urls))
    finally:
        await registry.close()
    # etcd's cluster has the registry's token for its own: it is part of the ids.
    return replace(config, initial_cluster=text, initial_cluster_token=discovery.token)


def open_registry(reactor: object, discovery: Discovery) -> Any:
    """Return the way to the registry; few starts need it, and its modules are many."""
    from etcdtw.server.start.registry import ClientRegistry

    return ClientRegistry(reactor, discovery)


def name_servers(resolv_conf: str) -> list[tuple[str, int]]:
    """Return this host's name servers; resolv.conf(5) without any means the host itself."""
    lines = [line.split() for line in resolv_conf.splitlines()]
    found = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    return [(address, DNS_PORT) for address in found or ["127.0.0.1"]]


def records_of(reactor: object, servers: Sequence[tuple[str, int]]) -> Records:
    """Return how records are looked up by name servers, address and port."""
    from twisted.names import client, dns  # few starts need them

    asks = client.Resolver(servers=list(servers), reactor=reactor)

    async def records(name: str) -> Sequence[tuple[str, int]]:
        answers, _, _ = await asks.lookupService(name, SRV_TIMEOUTS_S)
        found = [one.payload for one in answers if one.type == dns.SRV]
        found.sort(key=lambda one: (one.priority, -one.weight))
        return [(str(one.target), int(one.port)) for one in found]

    return records
