"""What a member holds before it starts: its addresses, and what is shown there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from etcdtw.server.doors.tls_roles import PeerTlsRoles
from etcdtw.transport.listener import Bound
from etcdtw.transport.name_lookup import SystemLookup
from etcdtw.transport.tls.policy import TlsPolicy


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Taken together, or none of it."""

    bound: Mapping[str, Sequence[Bound]]
    """By role."""
    client_tls: TlsPolicy | None
    peer_tls: PeerTlsRoles
    lookup: SystemLookup

    def let_go(self) -> None:
        """Free the addresses of a member that does not start."""
        let_go(self.bound)


def let_go(bound: Mapping[str, Sequence[Bound]]) -> None:
    """Free addresses behind which nobody stands yet."""
    for taken in bound.values():
        for one in taken:
            one.close()
