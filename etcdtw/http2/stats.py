"""Counters of one connection: plain ints, read by whoever exports them."""

from __future__ import annotations


class Stats:
    """What happened on one connection since it began.  Written by the connection only."""

    __slots__ = (
        "data_frames_out",
        "frames_in",
        "goaways_in",
        "octets_in",
        "pings_in",
        "refused",
        "resets_in",
        "resets_out",
        "settings_in",
        "streams",
    )

    def __init__(self) -> None:
        self.frames_in = 0
        self.octets_in = 0
        self.streams = 0  # opened, by either side
        self.refused = 0  # streams answered with REFUSED_STREAM
        self.data_frames_out = 0  # whole chunks, and pieces of at least `WORK_OCTETS_MIN`
        self.resets_in = 0
        self.resets_out = 0
        self.pings_in = 0
        self.settings_in = 0
        self.goaways_in = 0
