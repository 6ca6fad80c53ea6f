"""How much watching does in one piece, and keeps."""

from __future__ import annotations

from typing import Final

SLICE_CHANGES_MAX: Final = 1000
"""Changes read from history at a time; a revision is never split.  etcd: 1000 revisions."""
SLICE_READ_MAX: Final = 2 * 1024 * 1024
"""Octets read from history at a time, passed by at most one record's; more than the largest put
that etcd's default request limit allows."""
SLICE_WATCHERS_MAX: Final = 128
"""Unsynced watchers that share what was read."""
SLICE_EVENTS_MAX: Final = 4000
"""Deliveries in one slice: about 4 ms of work; passed by at most one revision's."""
SLICE_BYTES_MAX: Final = 1024 * 1024
"""Octets of events gathered in one slice; passed by at most one revision's."""
BATCHES_OCTETS_MAX: Final = 64 * 1024 * 1024
"""What is gathered for all watchers and not yet sent; beyond, what there is goes out."""

RESPONSE_SIZE_MAX: Final = 1572864 + 512 * 1024
"""Fragments stay below this: etcd's default request limit plus 512 KiB."""

PROGRESS_INTERVAL_MS: Final = 600_000
PROGRESS_INTERVAL_MS_MIN: Final = 100

DIRECT_MAX: Final = 4000
"""Deliveries of one revision that may be made at once; more are made in steps."""
DIRECT_OCTETS_MAX: Final = 4 * 1024 * 1024
"""Octets of one revision's events that may be made at once; more are made in steps."""
LONE_MAX: Final = 2
"""Watchers that may be told of any one change at once."""
HEAVY_MAX: Final = 100
"""Revisions of history that are known to be larger, of those that were met last."""
STEP_COST: Final = 3000
"""What a step of them may cost, in encoded events: about 3 ms; passed by at most one response."""
QUEUED_EVENTS_MAX: Final = 100_000
"""Events that wait behind a revision that is being told, past which the hub takes no more."""
QUEUED_REVISIONS_MAX: Final = 10_000
DISMISSED_MAX: Final = 2000
"""Watchers of closed streams that are forgotten in one piece."""
REPORTED_MAX: Final = 2000
"""Watchers whose progress is reported in one piece."""
