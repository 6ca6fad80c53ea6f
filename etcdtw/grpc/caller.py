"""Who makes a call, as its connection and its metadata tell; nothing of it is believed here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

TOKEN: Final = b"token"
"""The metadata key of what a client shows of an earlier authentication (etcd's name)."""
AUTHORIZATION: Final = b"authorization"
"""The same as gateways call it."""
FROM_GATEWAY: Final = b"grpcgateway-accept"
"""In what a gateway of real etcd passes on: the certificate is its own, and nobody's name."""

_BEARER: Final = b"Bearer "


def token_of(metadata: Callable[[bytes], bytes | None]) -> bytes | None:
    """Return what a call shows of an earlier authentication; None: nothing."""
    token = metadata(TOKEN)
    if token is None:
        token = metadata(AUTHORIZATION)
    return None if token is None else token.removeprefix(_BEARER)


class Caller:
    """Who makes a call.

    common_name    of the certificate that the client has proved to own; empty: none
    address        where the connection comes from, without the port; empty: no TCP, or this member
    remote, local  both ends of the connection, as ``host:port``; empty: no TCP, or this member
    token          of an earlier authentication; None: none
    is_certified   whether there is such a certificate: it may bear no name
    memo           what whoever finds out on whose behalf this is likes to keep
    """

    __slots__ = (
        "address", "common_name", "is_certified", "local", "memo", "remote", "token",
    )  # fmt: skip

    def __init__(
        self,
        address: str,
        common_name: str,
        token: bytes | None = None,
        *,
        is_certified: bool = False,
        remote: str = "",
        local: str = "",
    ) -> None:
        self.address = address
        self.common_name = common_name
        self.token = token
        self.is_certified = is_certified
        self.remote = remote
        self.local = local
        self.memo: object = None

    def showing(self, metadata: Callable[[bytes], bytes | None]) -> Caller:
        """Return the same caller with what one call shows."""
        token = token_of(metadata)
        is_gateway = self.is_certified and metadata(FROM_GATEWAY) is not None
        if token is None and not is_gateway:
            return self
        return Caller(
            self.address,
            "" if is_gateway else self.common_name,
            token,
            is_certified=self.is_certified and not is_gateway,
            remote=self.remote,
            local=self.local,
        )


NOBODY_KNOWN: Final = Caller("", "")
"""This member itself, or a client of whom nothing is known."""
