"""Every bound of one HTTP/2 connection, by name.

Sizes are octets, times milliseconds on the caller's clock.  A bucket of ``burst`` tokens gains
``per_s`` tokens a second; an empty bucket closes the connection with ENHANCE_YOUR_CALM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

WINDOW_MAX: Final = 2**31 - 1
FRAME_SIZE_MIN: Final = 16_384
FRAME_SIZE_MAX: Final = 2**24 - 1
WINDOW_DEFAULT: Final = 65_535
STREAMS_MAX: Final = 2**32 - 1
STREAM_ID_MAX: Final = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What we advertise, what we tolerate, what we hold.  Immutable; share one between all
    connections of a listener."""

    max_concurrent_streams: int = 10_000
    """Streams a peer may have open; one more is refused (REFUSED_STREAM).  Advertised."""
    header_list_size_max: int = 65_536
    """Sum of names, values and 32 a field; a larger list resets its stream.  Advertised."""
    header_block_size_max: int = 65_536
    """Compressed octets of one header block; one more closes the connection."""
    continuation_count_max: int = 16
    """CONTINUATION frames of one header block; one more closes the connection."""
    header_table_size: int = 4_096
    """What the peer may keep in our decoder's table.  Advertised."""
    frame_size_max: int = FRAME_SIZE_MIN
    """Largest frame payload we take.  Advertised."""
    stream_window: int = 1_048_576
    """Octets a peer may send on one stream ahead of our credit.  Advertised."""
    connection_window: int = 16_777_216
    """The same for all streams together."""
    block_cache_count_max: int = 64
    """Decoded header blocks kept for repetition."""
    reset_memory_count_max: int = 1_024
    """Streams we reset lately, whose late frames are ignored instead of answered."""
    control_octets_max: int = 1_048_576
    """Answers to control frames that wait for `take_output`; one octet more closes."""
    queued_octets_refuse: int = 67_108_864
    """While this much data waits for the peer's windows, its new streams are refused."""
    output_octets_max: int = WINDOW_MAX
    """Octets of data that are let out before `take_output`, however far the peer's windows are
    open: the rest waits in its streams.  Whoever sets it calls `resume` when that is written."""

    resets_burst: int = 1_000
    """Streams the peer resets, or makes us reset, before they were answered."""
    resets_per_s: int = 200
    """200 wasted requests a second, at some 40 us each, are one percent of a core."""
    settings_burst: int = 20
    settings_per_s: int = 2
    pings_burst: int = 20
    """Pings that arrive while we sent nothing; those that answer our data are free."""
    pings_per_s: int = 2
    idle_frames_burst: int = 10_000
    """Frames that carry nothing: WINDOW_UPDATE, PRIORITY, empty DATA, unknown types."""
    idle_frames_per_s: int = 1_000
    idle_frames_per_work: int = 8
    """Tokens regained for each stream opened and each DATA frame of some size."""

    keepalive_enforced: bool = True
    """Server role: close with debug data `too_many_pings`, as grpc-go does."""
    keepalive_min_ms: int = 5_000
    """Least time between two pings (etcd: --grpc-keepalive-min-time)."""
    keepalive_permit_without_stream: bool = False
    """False: without an open stream pings must be `keepalive_idle_ms` apart."""
    keepalive_idle_ms: int = 7_200_000
    keepalive_strikes_max: int = 2
    """Early pings forgiven since we last sent HEADERS or DATA."""

    def __post_init__(self) -> None:
        assert 0 <= self.max_concurrent_streams <= STREAMS_MAX
        assert FRAME_SIZE_MIN <= self.frame_size_max <= FRAME_SIZE_MAX
        # A peer may send by the default windows before it has read our SETTINGS.
        assert WINDOW_DEFAULT <= self.stream_window <= WINDOW_MAX
        assert WINDOW_DEFAULT <= self.connection_window <= WINDOW_MAX
        assert self.frame_size_max <= self.stream_window
        assert WINDOW_DEFAULT <= self.output_octets_max <= WINDOW_MAX


def for_offender(limits: Limits) -> Limits:
    """Return the bounds for somebody who broke them lately: what clients that do work need is
    earned by that work, so the bursts can be small."""
    return replace(
        limits,
        resets_burst=min(limits.resets_burst, 50),
        settings_burst=min(limits.settings_burst, 4),
        pings_burst=min(limits.pings_burst, 4),
        idle_frames_burst=min(limits.idle_frames_burst, 200),
        idle_frames_per_s=min(limits.idle_frames_per_s, 200),
    )
