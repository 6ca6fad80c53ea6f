"""File descriptors: how many this process may have, and who may use them up."""

from __future__ import annotations

import resource
from typing import Final, NamedTuple

from etcdtw.transport.client.places import CLIENTS_MAX
from etcdtw.transport.peer_port.places import PlaceBounds

RESERVE: Final = 150
"""Descriptors that no client gets (etcd's number): files, children, sockets to peers, metrics,
and the first `PEERS_MIN` of peers."""
PEERS_MIN: Final = 64
PEERS_SHARE: Final = 16
"""Peers get a sixteenth of what there is beyond the reserve, up to `PlaceBounds.total_max`."""
METRICS_MAX: Final = 16
"""Connections to `--listen-metrics-urls`, which clients cannot take."""


class DescriptorShares(NamedTuple):
    """How many connections there may be."""

    clients_max: int
    peers_max: int

    @property
    def places(self) -> PlaceBounds:
        """Return the places of the peer port."""
        most = PlaceBounds()
        strangers_max = min(most.strangers_max, self.peers_max // 4)
        return PlaceBounds(
            total_max=self.peers_max,
            address_max=min(most.address_max, self.peers_max // 2),
            strangers_max=strangers_max,
            stranger_max=min(most.stranger_max, strangers_max // 2),
        )


def raise_limit() -> int:
    """Raise this process's limit of descriptors as far as it may; return what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # some systems have a bound below the hard limit
        return _count(soft)
    return _count(hard)


def share_out(limit: int) -> DescriptorShares | None:
    """Return who gets how many of ``limit`` descriptors; None: too few to serve anybody."""
    spare = limit - RESERVE
    if spare <= 0:
        return None
    peers_max = min(PlaceBounds().total_max, PEERS_MIN + spare // PEERS_SHARE)
    return DescriptorShares(min(CLIENTS_MAX, spare - (peers_max - PEERS_MIN)), peers_max)


ALL_SHARES: Final = DescriptorShares(CLIENTS_MAX, PlaceBounds().total_max)


def _count(limit: int) -> int:
    return 1 << 30 if limit == resource.RLIM_INFINITY else limit
