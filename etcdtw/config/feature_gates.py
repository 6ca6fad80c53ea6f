"""Feature gates: etcd's names, stages and defaults, and what etcdtw has of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from etcdtw.config.govalues import ValueTextError, parse_bool

ALPHA: Final = "ALPHA"
BETA: Final = "BETA"


class Gate(NamedTuple):
    """One gate."""

    stage: str
    default: bool


GATES: Final = {
    # On by default, unlike etcd's, as is LeaseCheckpoint: see docs/departures.md.
    "CompactHashCheck": Gate(ALPHA, True),
    "FastLeaseKeepAlive": Gate(BETA, True),
    "InitialCorruptCheck": Gate(ALPHA, True),
    "LeaseCheckpoint": Gate(ALPHA, True),
    # A checkpoint is replicated state here, so it always persists.
    "LeaseCheckpointPersist": Gate(ALPHA, True),
    "PriorityRequest": Gate(ALPHA, False),
    "SetMemberLocalAddr": Gate(ALPHA, False),
    "StopGRPCServiceOnDefrag": Gate(ALPHA, False),
    # A detail of bbolt's buffers: nothing to open or shut here.
    "TxnModeWriteWithSharedBuffer": Gate(BETA, True),
}
_BULK: Final = {"AllAlpha": ALPHA, "AllBeta": BETA}

FeatureGates = Mapping[str, bool]
"""Every gate of `GATES`, by name: open or shut."""


def parse_feature_gates(text: str) -> dict[str, bool]:
    """Return the state of every gate.  Raises `ValueTextError` with etcd's words.

    A bulk word sets the gates of its stage that the text does not name.
    """
    named: dict[str, bool] = {}
    for pair in text.split(","):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not name:
            continue
        if name not in GATES and name not in _BULK:
            raise ValueTextError(f"unrecognized feature gate: {name}")
        if not equals:
            raise ValueTextError(f"missing bool value for {name}")
        try:
            named[name] = parse_bool(value)
        except ValueTextError as error:
            raise ValueTextError(
                f'invalid value of {name}={value}, err: strconv.ParseBool: parsing "{value}": '
                "invalid syntax"
            ) from error
    state = {name: gate.default for name, gate in GATES.items()}
    for bulk, stage in _BULK.items():
        if bulk in named:
            state.update({name: named[bulk] for name, gate in GATES.items() if gate.stage == stage})
    state.update({name: value for name, value in named.items() if name in GATES})
    if state["LeaseCheckpoint"] and not state["LeaseCheckpointPersist"]:
        raise ValueTextError(
            "feature gate LeaseCheckpointPersist=false is not supported: checkpoints always "
            "persist; shut LeaseCheckpoint to have none"
        )
    if named.get("LeaseCheckpointPersist") and not state["LeaseCheckpoint"]:
        raise ValueTextError("LeaseCheckpointPersist needs LeaseCheckpoint")
    return state
