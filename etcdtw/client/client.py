"""A client of etcd over the network, for Twisted.

    client = Client(reactor, ["https://etcd1:2379", "https://etcd2:2379"], tls=ClientTls(...))
    await client.put("key", "value")
    async for event in client.watch("key"):
        ...

All methods return Deferreds, which can be awaited, or objects that are read with ``async for``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Unpack, cast

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IStreamClientEndpoint

from etcdtw.client.admin import Maintenance, Members, Roles, Users
from etcdtw.client.channel import Metadata
from etcdtw.client.elections import Election
from etcdtw.client.keys import Key, WatchOptions
from etcdtw.client.kv import KeyValues
from etcdtw.client.lease import Lease, Leases
from etcdtw.client.locks import TTL_S, Lock
from etcdtw.client.network.bounds import NetworkBounds
from etcdtw.client.network.channel import NetworkChannel
from etcdtw.client.network.retrying import Credentials, RetryingChannel
from etcdtw.client.network.target import find_target
from etcdtw.client.watch import NEEDS_LEADER, Watch, watch_request
from etcdtw.transport.tls.context import DialFiles
from etcdtw.transport.tls.dial import PeerDialTls

Server = str | IStreamClientEndpoint
ClientTls = DialFiles
"""Which files of certificates: read again when they change."""


class Client(KeyValues):
    """All of etcd, from several servers.  To be closed.

    ``servers``: see `network.target.find_target`; calls go round those that can be reached.  With
    ``user`` and ``password`` every call shows that user's token.  Without ``tls`` servers of
    https URLs are judged by the system's authorities.  Raises `ValueError` for what is no server,
    and `TlsError` for files that cannot be used.
    """

    def __init__(
        self,
        reactor: Any,
        servers: Server | Sequence[Server],
        *,
        user: str | None = None,
        password: str = "",
        tls: ClientTls | None = None,
        bounds: NetworkBounds | None = None,
        seeded: random.Random | None = None,
    ) -> None:
        is_one = isinstance(servers, str) or IStreamClientEndpoint.providedBy(servers)
        told = cast(Sequence[Server], [servers] if is_one else servers)
        self._reactor = reactor
        self._more: dict[str, Any] = {"user": user, "password": password, "tls": tls}
        self._bounds = bounds or NetworkBounds()
        self._random = seeded or random.Random()
        self._tls = tls or ClientTls()
        self._dialler: PeerDialTls | None = None
        if tls is not None:
            self._dial_tls()
        timeout_s = self._bounds.dial_timeout_ms / 1_000
        targets = [find_target(reactor, server, self._wrap_tls, timeout_s) for server in told]
        channel = NetworkChannel(targets, reactor, random=self._random.random, bounds=self._bounds)
        super().__init__(
            RetryingChannel(
                channel,
                reactor,
                random=self._random.random,
                servers=len(targets),
                credentials=None if user is None else Credentials(user, password),
            )
        )
        self._only: list[Client] = []
        self.leases = Leases(self._channel)
        self.users = Users(self._channel)
        self.roles = Roles(self._channel)
        self.members = Members(self._channel)
        self.maintenance = Maintenance(self._channel)

    def watch(
        self,
        key: Key,
        *,
        metadata: Metadata = NEEDS_LEADER,
        **options: Unpack[WatchOptions],
    ) -> Watch:
        """Watch ``key``, or a range: see `watch.watch_request`, and `Watch` for what comes."""
        return Watch(self._channel, watch_request(key, **options), metadata)

    def lock(self, name: Key, *, ttl_s: int = TTL_S, lease: Lease | None = None) -> Lock:
        """Return a lock, to be acquired: see `Lock`."""
        return Lock(self._channel, self.leases, name, ttl_s=ttl_s, lease=lease)

    def election(self, name: Key, *, ttl_s: int = TTL_S, lease: Lease | None = None) -> Election:
        """Return an election, to campaign in or to observe: see `Election`."""
        return Election(self._channel, self.leases, name, ttl_s=ttl_s, lease=lease)

    def only(self, server: Server) -> Client:
        """Return a client of one server, with the same user and files; closed with this one."""
        client = Client(
            self._reactor, server, bounds=self._bounds, seeded=self._random, **self._more
        )
        self._only.append(client)
        return client

    def close(self) -> Deferred[None]:
        """End all calls and hang up.  Leases end by themselves, when they are no longer renewed."""
        self.leases.close()
        closing = [client.close() for client in self._only]
        self._only.clear()
        return gatherResults([*closing, self._channel.close()]).addCallback(lambda _: None)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _dial_tls(self) -> PeerDialTls:
        if self._dialler is None:
            files = replace(self._tls, alpn=(b"h2",))
            self._dialler = PeerDialTls(files, self._reactor)
        return self._dialler

    def _wrap_tls(self, endpoint: IStreamClientEndpoint, host: str) -> IStreamClientEndpoint:
        return self._dial_tls().wrap(endpoint, host)
