"""Finding the founders of a cluster: in the registry of another cluster, or in DNS.

Pure: what was found in, what ``--initial-cluster`` would have said out.
Source: etcd 3.7.3's v3 discovery and SRV discovery; the texts of errors are etcd's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from etcdtw.cluster.initial_cluster import InitialClusterError, parse_initial_cluster
from etcdtw.cluster.urls import MemberUrl

REGISTRY: Final = "/_etcd/registry"
SIZE_MAX: Final = 1 << 10
"""Founders that a registry may ask for; a size that is larger is a slip."""
SIZE_NOT_FOUND: Final = "discovery: size key not found"
SIZE_IS_BAD: Final = "discovery: size key is bad"
CLUSTER_IS_FULL: Final = "discovery: cluster is full"
URL_IS_BAD: Final = "discovery: invalid peer URL"
SECURE: Final = "https"
SERVICES: Final = ((SECURE, "etcd-server-ssl"), ("http", "etcd-server"))
"""Scheme and service that peers are looked for under, in etcd's order."""


class DiscoveryError(Exception):
    """The founders cannot be found; says why."""


def size_key(token: str) -> str:
    """Return where a registry says how many found the cluster."""
    return f"{REGISTRY}/{token}/_config/size"


def members_prefix(token: str) -> str:
    """Return what the keys of founders begin with."""
    return f"{REGISTRY}/{token}/members"


def member_key(token: str, member_id: int) -> str:
    """Return where a founder registers itself."""
    return f"{members_prefix(token)}/{member_id:x}"


def parse_size(value: bytes | None) -> int:
    """Return the number of founders; None: no such key.  Raises `DiscoveryError`."""
    if value is None:
        raise DiscoveryError(SIZE_NOT_FOUND)
    text = value.decode("ascii", "replace")
    if not text.removeprefix("+").isdecimal() or not 0 < int(text) <= SIZE_MAX:
        raise DiscoveryError(SIZE_IS_BAD)
    return int(text)


class Registration(NamedTuple):
    """A key of the registry."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int


class _Registered(NamedTuple):
    create_revision: int
    key: str
    entry: str


class Roll:
    """Who has registered, in the order in which they came."""

    def __init__(self) -> None:
        self._members: list[_Registered] = []

    def __len__(self) -> int:
        return len(self._members)

    def add(self, key: bytes, value: bytes, create_revision: int) -> str:
        """Take a registration; returns why it does not count, or an empty text."""
        name = key.decode("utf-8", "replace").strip()
        entry = value.decode("utf-8", "replace").strip()
        if "=" not in entry:
            return "invalid peer info returned from discovery service"
        if any(one.key == name for one in self._members):
            return "found duplicate peer from discovery service"
        self._members.append(_Registered(create_revision, name, entry))
        self._members.sort()
        return ""

    def has_place(self, key: str, size: int) -> bool:
        """Whether who has registered under ``key``, or would now, is among the first ``size``."""
        keys = [one.key for one in self._members]
        return (keys.index(key) if key in keys else len(keys)) < size

    def initial_cluster(self, size: int) -> str:
        """Return the first ``size``, as --initial-cluster names them.  Raises `DiscoveryError`."""
        text = ",".join(one.entry for one in self._members[:size])
        try:
            cluster = parse_initial_cluster(text)
        except InitialClusterError as error:
            raise DiscoveryError(URL_IS_BAD) from error
        urls = [url for urls in cluster.values() for url in urls]
        if len(set(urls)) != len(urls):
            raise DiscoveryError(f"discovery cluster {text} has duplicate url")
        return text


class SrvTarget(NamedTuple):
    """One record, and the addresses of its target; none: they are not known."""

    host: str
    port: int
    addresses: tuple[str, ...]


def srv_name(service: str, suffix: str, domain: str) -> str:
    """Return the name of the records of a service."""
    return f"_{service}{f'-{suffix}' if suffix else ''}._tcp.{domain}"


class SrvFounders:
    """Founders by their records, which name no members: all but this one get numbers."""

    def __init__(self, name: str, own: Mapping[tuple[str, int], MemberUrl]) -> None:
        """``own``: the peer URLs that this member advertises, by address and port."""
        self._name = name
        self._own = own
        self._entries: list[str] = []
        self.faults: list[str] = []
        """What was wrong with single records."""

    def add(self, scheme: str, targets: Sequence[SrvTarget]) -> None:
        """Take the records of one service; its numbers begin at 0, as etcd's do."""
        number = 0
        for target in targets:
            host = target.host.rstrip(".")
            if not target.addresses:
                self.faults.append(f"lookup {host}: no such host")
                continue
            mine = [
                self._own[address, target.port]
                for address in target.addresses
                if (address, target.port) in self._own
            ]
            url = f"{scheme}://{_joined(host, target.port)}"
            if mine and mine[0].scheme != scheme:
                self.faults.append(
                    f"bootstrap at {url} from DNS for {target.host} has scheme mismatch with "
                    f"expected peer {mine[0]}"
                )
            elif mine:
                self._entries.append(f"{self._name}={url}")
            else:
                self._entries.append(f"{number}={url}")
                number += 1

    def initial_cluster(self) -> str:
        """Return what --initial-cluster would say.  Raises `DiscoveryError`."""
        if not self._entries:
            raise DiscoveryError(
                "error querying DNS SRV records: " + ("; ".join(self.faults) or "there are none")
            )
        if not any(one.startswith(f"{self._name}=") for one in self._entries):
            raise DiscoveryError(f'cannot find local etcd member "{self._name}" in SRV records')
        return ",".join(self._entries)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def own_addresses(
    urls: Collection[MemberUrl], addresses: Mapping[str, Sequence[str]]
) -> dict[tuple[str, int], MemberUrl]:
    """Return the URLs by what their hosts resolve to (``addresses``, by host)."""
    return {
        (address, url.port): url
        for url in urls
        if not url.is_unix
        for address in addresses.get(url.host, ())
    }
