"""Who makes a call, as its connection and its metadata tell; nothing of it is believed here."""

from __future__ import annotations

from typing import Final

TOKEN: Final = b"token"
"""The metadata key of what a client shows of an earlier authentication (etcd's name)."""


class Caller:
    """Who makes a call.

    common_name  of the certificate that the client has proved to own; empty: none
    address      where the connection comes from, without the port; empty: no TCP, or this member
    token        of an earlier authentication; None: none
    """

    __slots__ = ("address", "common_name", "token")

    def __init__(self, address: str, common_name: str, token: bytes | None = None) -> None:
        self.address = address
        self.common_name = common_name
        self.token = token

    def showing(self, token: bytes | None) -> Caller:
        """Return the same caller with what one call shows; None: it shows nothing."""
        return self if token is None else Caller(self.address, self.common_name, token)


NOBODY_KNOWN: Final = Caller("", "")
"""This member itself, or a client of whom nothing is known."""
