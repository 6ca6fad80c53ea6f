"""Flags of earlier etcd, which are taken and ignored, and what is said of those that will go.

Source: etcd v3.7.
"""

from __future__ import annotations

from typing import Final

from etcdtw.config.flags import BOOL, LEGACY, STRING, FlagSpec

_LEGACY_NAMES: Final = (
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
)
_LEGACY_BOOLS: Final = ("force", "snapshot", "v", "vv")

DEPRECATIONS: Final = {
    "max-snapshots": "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.",
    "v2-deprecation": (
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is "
        "enforced, ignoring user input."
    ),
}
"""What etcd says of a flag that is set, whatever its value; tools look for these lines."""


def _specs() -> dict[str, FlagSpec]:
    return {
        name: FlagSpec(
            name=name,
            kind=BOOL if name in _LEGACY_BOOLS else STRING,
            default="false" if name in _LEGACY_BOOLS else "",
            group="",
            meaning="Ignored, as by etcd.",
            status=LEGACY,
        )
        for name in _LEGACY_NAMES
    }


LEGACY_FLAGS: Final = _specs()
"""By name."""
