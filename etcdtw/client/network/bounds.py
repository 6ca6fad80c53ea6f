"""Every bound of a client over the network, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from etcdtw.grpc.client import CLIENT_MESSAGE_SIZE_MAX
from etcdtw.http2.limits import Limits

CLIENT_LIMITS: Final = Limits(
    # A server that was chosen is trusted with more than a stranger; it still has bounds.
    pings_burst=1_000,
    pings_per_s=100,
    settings_burst=100,
    resets_burst=100_000,
    resets_per_s=10_000,
    idle_frames_burst=100_000,
    idle_frames_per_s=10_000,
    keepalive_enforced=False,
)


@dataclass(frozen=True, kw_only=True)
class NetworkBounds:
    """What one channel holds and waits for.  Sizes in octets.

    ``untaken``: messages of streams that nobody has received yet; a stream that brings more than
    the bound allows is ended.  Its server is stopped long before, by the stream's window, unless
    very many streams are left unread.
    """

    calls_max: int = 10_000
    """Under way or waiting for a connection; one more fails with RESOURCE_EXHAUSTED."""
    request_size_max: int = 2 * 1024 * 1024  # as etcd's own clients
    message_size_max: int = CLIENT_MESSAGE_SIZE_MAX  # as etcd's own clients
    untaken_size_max: int = 64 * 1024 * 1024  # of one connection
    queued_size_max: int = 16 * 1024 * 1024
    """Of one stream: what is sent on it and not let out by its server."""
    unsent_size_max: int = 64 * 1024 * 1024
    """Of one connection: while more waits for the server, calls go elsewhere, or wait."""
    connection_wait_ms: int = 5_000
    """How long a call waits while no server can be reached."""
    refusals_max: int = 5
    """How often a call is made anew that its server has not looked at."""

    dial_timeout_ms: int = 5_000
    """From the first packet to the server's SETTINGS."""
    backoff_min_ms: int = 50
    backoff_max_ms: int = 5_000
    keepalive_ms: int = 10_000
    """A connection with calls that brought nothing for so long is asked for a sign of life.
    Servers take offence at less than 5 s."""
    keepalive_timeout_ms: int = 10_000
    close_timeout_ms: int = 1_000
    """How long a closing connection may take to write its last octets."""
    limits: Limits = CLIENT_LIMITS
