"""Command lines by the rules of Go's flag package, which etcd's users have in their fingers.

``-flag`` and ``--flag`` are the same; ``-f=v`` and ``-f v``; a boolean takes a value only
after ``=``; ``--`` or the first word without a dash ends the flags; nothing is abbreviated.
Knows nothing of what the flags mean: `flag_table` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from etcdtw.cluster.urls import MemberUrl, UrlError, parse_urls
from etcdtw.config.govalues import ValueTextError, parse_bool, parse_duration_ns, parse_integer

BOOL: Final = "bool"
STRING: Final = "string"
INT: Final = "int"
UINT32: Final = "uint32"
UINT: Final = "uint"
DURATION: Final = "duration"
URLS: Final = "urls"
LIST: Final = "list"
CHOICE: Final = "choice"
CHOICES: Final = "choices"  # any number of the choices, separated by commas

SUPPORTED: Final = "supported"
NO_EFFECT: Final = "no effect"  # names a part of etcd that etcdtw replaces by another
LEGACY: Final = "legacy"  # etcd itself ignores it

STATUS_ERROR: Final = 1
STATUS_USAGE: Final = 2

Value = bool | int | str | tuple[str, ...] | tuple[MemberUrl, ...]
"""What a flag holds: durations are int nanoseconds, URL and word lists are tuples."""


class FlagError(Exception):
    """The process cannot start as it was told to; ``status`` is the exit status."""

    def __init__(self, message: str, status: int = STATUS_ERROR) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True, kw_only=True)
class FlagSpec:
    """One flag: its name, kind, default (as text) and what it is for."""

    name: str
    kind: str
    default: str
    group: str
    meaning: str
    status: str = SUPPORTED
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "ETCD_" + self.name.upper().replace("-", "_")


def parse_value(spec: FlagSpec, text: str) -> Value:
    """Parse ``text`` as the flag's kind.  Raises ValueError with Go's or etcd's words."""
    match spec.kind:
        case "bool":
            return parse_bool(text)
        case "int":
            return parse_integer(text, -(2**63), 2**63 - 1)
        case "uint32":
            return parse_integer(text, 0, 2**32 - 1)
        case "uint":
            return parse_integer(text, 0, 2**64 - 1)
        case "duration":
            return parse_duration_ns(text)
        case "urls":
            return parse_urls(text) if text else ()
        case "list":
            return tuple(word.strip() for word in text.split(",")) if text else ()
        case "choice":
            if text not in spec.choices:
                raise ValueTextError("invalid value")
        case "choices":
            _check_choices(spec, text)
    return text


def _check_choices(spec: FlagSpec, text: str) -> None:
    for word in text.split(","):
        if word not in spec.choices:
            raise ValueTextError(f'invalid value "{word}"')


def parse_arguments(
    arguments: Sequence[str], specs: Mapping[str, FlagSpec]
) -> tuple[dict[str, Value], list[str]]:
    """Return the flags that are set, by name, and the words after them.

    ``help`` and ``h`` come back as flags set to True.  Raises `FlagError` (status 2).
    """
    found: dict[str, Value] = {}
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        if len(argument) < 2 or not argument.startswith("-"):
            break
        position += 1
        if argument == "--":
            break
        name, equals, text = _split(argument)
        spec = specs.get(name)
        if spec is None:
            if name in ("help", "h"):
                return {"help": True}, []
            raise FlagError(f"flag provided but not defined: -{name}", STATUS_USAGE)
        if not equals:
            if spec.kind == BOOL:
                text = "true"
            elif position == len(arguments):
                raise FlagError(f"flag needs an argument: -{name}", STATUS_USAGE)
            else:
                text = arguments[position]
                position += 1
        found[name] = _value(spec, text)
    return found, list(arguments[position:])


def _split(argument: str) -> tuple[str, str, str]:
    stripped = argument[2:] if argument.startswith("--") else argument[1:]
    if stripped[:1] in ("", "-", "="):
        raise FlagError(f"bad flag syntax: {argument}", STATUS_USAGE)
    return stripped.partition("=")


def _value(spec: FlagSpec, text: str) -> Value:
    try:
        return parse_value(spec, text)
    except (ValueTextError, UrlError) as error:
        if spec.kind == BOOL:
            message = f'invalid boolean value "{text}" for -{spec.name}: {error}'
        else:
            message = f'invalid value "{text}" for flag -{spec.name}: {error}'
        raise FlagError(message, STATUS_USAGE) from error
