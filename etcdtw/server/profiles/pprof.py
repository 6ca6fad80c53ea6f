"""Profiles in the form that ``go tool pprof`` reads, and as lines for flame graphs.

Source: github.com/google/pprof, proto/profile.proto (field numbers).
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple


class Place(NamedTuple):
    """A line of a function."""

    function: str
    file: str
    line: int


Stack = tuple[Place, ...]
"""The innermost place first."""

PROFILE_SAMPLE_TYPE: Final = 1
PROFILE_SAMPLE: Final = 2
PROFILE_LOCATION: Final = 4
PROFILE_FUNCTION: Final = 5
PROFILE_STRINGS: Final = 6
PROFILE_TIME_NS: Final = 9
PROFILE_DURATION_NS: Final = 10
PROFILE_PERIOD_TYPE: Final = 11
PROFILE_PERIOD: Final = 12


def folded(samples: Mapping[Stack, Sequence[int]]) -> str:
    """Return a line for each stack, outermost function first, and its last value."""
    lines = []
    for stack, values in samples.items():
        names = ";".join(f"{place.function} ({place.file})" for place in reversed(stack))
        lines.append(f"{names} {values[-1]}\n")
    return "".join(sorted(lines))


def encode_profile(
    samples: Mapping[Stack, Sequence[int]],
    kinds: Sequence[tuple[str, str]],
    *,
    time_ns: int = 0,
    duration_ns: int = 0,
    period: int = 0,
) -> bytes:
    """Return the compressed profile; ``kinds`` are name and unit of each value of a sample."""
    strings: dict[str, int] = {"": 0}
    functions: dict[tuple[str, str], int] = {}
    places: dict[Place, int] = {}

    def text(value: str) -> int:
        return strings.setdefault(value, len(strings))

    def kind(name: str, unit: str) -> bytes:
        return _number(1, text(name)) + _number(2, text(unit))

    parts = [_octets(PROFILE_SAMPLE_TYPE, kind(*one)) for one in kinds]
    for stack, values in samples.items():
        for place in stack:
            functions.setdefault((place.function, place.file), len(functions) + 1)
            places.setdefault(place, len(places) + 1)
        ids = b"".join([_number(1, places[place]) for place in stack])
        sample = ids + b"".join([_octets(2, b"".join([_varint(value) for value in values]))])
        parts.append(_octets(PROFILE_SAMPLE, sample))
    for place, number in places.items():
        line = _number(1, functions[place.function, place.file]) + _number(2, place.line)
        parts.append(_octets(PROFILE_LOCATION, _number(1, number) + _octets(4, line)))
    for (name, file), number in functions.items():
        shown = text(name)
        body = _number(1, number) + _number(2, shown) + _number(3, shown) + _number(4, text(file))
        parts.append(_octets(PROFILE_FUNCTION, body))
    parts.append(_octets(PROFILE_PERIOD_TYPE, kind(*kinds[-1])))
    parts += [_octets(PROFILE_STRINGS, one.encode("utf-8", "replace")) for one in strings]
    parts += [_number(PROFILE_TIME_NS, time_ns), _number(PROFILE_DURATION_NS, duration_ns)]
    parts.append(_number(PROFILE_PERIOD, period))
    return gzip.compress(b"".join(parts), 1)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _octets(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
