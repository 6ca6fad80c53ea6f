"""``--log-rotation-config-json``: etcd's JSON in, when a log file is begun anew out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from etcdtw.config.govalues import ValueTextError

MEGABYTE: Final = 1024 * 1024
DAY_S: Final = 86_400
SIZE_DEFAULT_MB: Final = 100
NOT_FILES: Final = frozenset(("default", "stderr", "stdout"))
"""Values of ``--log-outputs`` that rotation overlooks; etcd takes the journal for a file, and so
refuses it beside one."""


@dataclass(frozen=True, kw_only=True)
class LogRotation:
    """When a log file is begun anew, and what is kept of the old ones; 0 sets no limit."""

    size_max: int
    age_max_s: int
    backups_max: int
    is_local_time: bool
    """Names of old files hold the local time, else UTC."""
    compresses: bool


def parse_log_rotation(text: str) -> LogRotation:
    """Return what the JSON asks for; unknown keys are overlooked.  Raises `ValueTextError`."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueTextError(f"improperly formatted log rotation config: {error}") from error
    if not isinstance(content, dict):
        raise ValueTextError(f"invalid log rotation config: expected an object, found {text}")
    # Go's JSON takes keys in any case.
    values = {str(key).lower(): value for key, value in content.items() if value is not None}
    return LogRotation(
        size_max=(_count(values, "maxsize") or SIZE_DEFAULT_MB) * MEGABYTE,
        age_max_s=_count(values, "maxage") * DAY_S,
        backups_max=_count(values, "maxbackups"),
        is_local_time=_flag(values, "localtime"),
        compresses=_flag(values, "compress"),
    )


def can_rotate(outputs: tuple[str, ...]) -> bool:
    """Whether etcd takes these ``--log-outputs`` together with rotation: it rotates one file."""
    count = sum(output not in NOT_FILES for output in outputs)
    return count == 1 or (count == 0 and len(outputs) > 1)


def _count(values: dict[str, object], key: str) -> int:
    value = values.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueTextError(f"invalid log rotation config: {key} is {value!r}, no whole number")
    if value < 0:
        raise ValueTextError(f"invalid log rotation config: {key} is negative ({value})")
    return value


def _flag(values: dict[str, object], key: str) -> bool:
    value = values.get(key, False)
    if not isinstance(value, bool):
        raise ValueTextError(f"invalid log rotation config: {key} is {value!r}, not true or false")
    return value
