"""SETTINGS of the peer: checked values, and ours as octets.  Source: RFC 9113 section 6.5."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from etcdtw.http2 import frames
from etcdtw.http2.errors import (
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    PeerError,
)
from etcdtw.http2.limits import (
    FRAME_SIZE_MAX,
    FRAME_SIZE_MIN,
    STREAMS_MAX,
    WINDOW_DEFAULT,
    WINDOW_MAX,
    Limits,
)

TABLE_SIZE_DEFAULT: Final = 4_096


@dataclass(frozen=True, kw_only=True)
class PeerSettings:
    """What the peer allows us.  Replaced as a whole by each SETTINGS frame."""

    header_table_size: int = TABLE_SIZE_DEFAULT
    lowest_table_size: int = TABLE_SIZE_DEFAULT
    """The lowest value named in the last frame; an encoder must tell that it saw it."""
    max_concurrent_streams: int = STREAMS_MAX
    initial_window: int = WINDOW_DEFAULT
    frame_size_max: int = FRAME_SIZE_MIN


def read_settings(payload: bytes, before: PeerSettings, client: bool) -> PeerSettings:
    """Return ``before`` with the frame applied, in its order; unknown identifiers are ignored.

    ``client`` is our role.  Raises `PeerError` on a value out of its range.
    """
    if len(payload) % frames.SETTING.size:
        raise PeerError(FRAME_SIZE_ERROR, b"SETTINGS of a wrong size")
    values: dict[str, int] = {}
    lowest = before.header_table_size
    for identifier, value in frames.SETTING.iter_unpack(payload):
        if identifier == frames.SETTINGS_HEADER_TABLE_SIZE:
            lowest = min(lowest, value)
            values["header_table_size"] = value
        elif identifier == frames.SETTINGS_ENABLE_PUSH:
            # A server never offers push to a client that way (6.5.2).
            if value > (0 if client else 1):
                raise PeerError(PROTOCOL_ERROR, b"bad SETTINGS_ENABLE_PUSH")
        elif identifier == frames.SETTINGS_MAX_CONCURRENT_STREAMS:
            values["max_concurrent_streams"] = value
        elif identifier == frames.SETTINGS_INITIAL_WINDOW_SIZE:
            if value > WINDOW_MAX:
                raise PeerError(FLOW_CONTROL_ERROR, b"bad SETTINGS_INITIAL_WINDOW_SIZE")
            values["initial_window"] = value
        elif identifier == frames.SETTINGS_MAX_FRAME_SIZE:
            if not FRAME_SIZE_MIN <= value <= FRAME_SIZE_MAX:
                raise PeerError(PROTOCOL_ERROR, b"bad SETTINGS_MAX_FRAME_SIZE")
            values["frame_size_max"] = value
    return replace(before, lowest_table_size=lowest, **values)


def encode_limits(limits: Limits, client: bool) -> bytes:
    """Return our SETTINGS frame and the WINDOW_UPDATE that opens the connection's window."""
    settings = [
        (frames.SETTINGS_INITIAL_WINDOW_SIZE, limits.stream_window),
        (frames.SETTINGS_MAX_HEADER_LIST_SIZE, limits.header_list_size_max),
    ]
    if client:
        settings.append((frames.SETTINGS_ENABLE_PUSH, 0))
    else:
        settings.append((frames.SETTINGS_MAX_CONCURRENT_STREAMS, limits.max_concurrent_streams))
    if limits.frame_size_max != FRAME_SIZE_MIN:
        settings.append((frames.SETTINGS_MAX_FRAME_SIZE, limits.frame_size_max))
    if limits.header_table_size != TABLE_SIZE_DEFAULT:
        settings.append((frames.SETTINGS_HEADER_TABLE_SIZE, limits.header_table_size))
    octets = frames.encode_settings(tuple(settings))
    increment = limits.connection_window - WINDOW_DEFAULT
    return octets + frames.encode_window_update(0, increment) if increment else octets
