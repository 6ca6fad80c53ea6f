"""A registry of founders, kept by another cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from etcdtw.client.client import Client, ClientTls
from etcdtw.client.network.bounds import NetworkBounds
from etcdtw.cluster.discovery import Registration
from etcdtw.config.discovery import Discovery
from etcdtw.wire import mvccpb

KEEPALIVE_MIN_S: Final = 5.0
"""Servers take offence at less."""


class ClientRegistry:
    """Implements `server.start.discovery.Registry` over the network."""

    def __init__(self, reactor: object, discovery: Discovery) -> None:
        """Raises ValueError for endpoints that are none, `TlsError` for unusable files."""
        self._timeout_ms = int(discovery.request_timeout_s * 1000)
        self._client = Client(
            reactor,
            [endpoint_url(one, is_plain=discovery.is_plain) for one in discovery.endpoints],
            user=discovery.user or None,
            password=discovery.password,
            tls=ClientTls(
                cert_file=discovery.cert_file or None,
                key_file=discovery.key_file or None,
                trusted_ca_file=discovery.trusted_ca_file or None,
                verifies=discovery.verifies,
            ),
            bounds=NetworkBounds(
                dial_timeout_ms=int(discovery.dial_timeout_s * 1000),
                keepalive_ms=int(max(discovery.keepalive_time_s, KEEPALIVE_MIN_S) * 1000),
                keepalive_timeout_ms=int(discovery.keepalive_timeout_s * 1000),
            ),
        )

    async def get(self, key: str, *, is_prefix: bool) -> tuple[Sequence[Registration], int]:
        answer = await self._client.get(key, prefix=is_prefix, timeout_ms=self._timeout_ms)
        return [_registration(kv) for kv in answer.kvs], answer.header.revision

    async def put(self, key: str, value: str) -> None:
        await self._client.put(key, value, timeout_ms=self._timeout_ms)

    async def next_after(self, prefix: str, revision: int) -> Sequence[Registration]:
        watch = self._client.watch(prefix, prefix=True, start_revision=revision + 1)
        try:
            async for event in watch:
                return [_registration(event.kv)]
        finally:
            watch.cancel()
        return []

    async def close(self) -> None:
        await self._client.close()


def _registration(kv: mvccpb.KeyValue) -> Registration:
    return Registration(kv.key, kv.value, kv.create_revision, kv.mod_revision)


def endpoint_url(endpoint: str, *, is_plain: bool) -> str:
    """Return the URL of an endpoint, which may be an address."""
    if "://" in endpoint:
        return endpoint
    return f"{'http' if is_plain else 'https'}://{endpoint}"
