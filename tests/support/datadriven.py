"""Golden scripts: directives with the output that each must produce.

    # a comment
    command argument key=value key=(one, two)
    input lines
    ----
    expected output, up to the next blank line

Expected output that holds blank lines stands between doubled rules.  Knows no directive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

_ARGUMENT = re.compile(r"([^\s=()]+)(?:=(\([^()]*\)|[^\s()]*))?")


@dataclass
class Directive:
    """One step of a script.  ``arguments`` are those without a value, in order."""

    line_number: int
    command: str
    arguments: list[str] = field(default_factory=list)
    keys: dict[str, list[str]] = field(default_factory=dict)
    input: str = ""
    expected: str = ""

    def value(self, key: str, default: str = "") -> str:
        values = self.keys.get(key)
        return default if values is None else values[0]


def parse_script(path: Path) -> list[Directive]:
    """Return the directives of the script at ``path``, in order."""
    lines = path.read_text(encoding="utf-8").split("\n")
    directives: list[Directive] = []
    position = 0
    while position < len(lines):
        line = lines[position].strip()
        if not line or line.startswith("#"):
            position += 1
            continue
        directive = Directive(position + 1, "")
        while line.endswith("\\"):
            position += 1
            line = line[:-1] + lines[position].strip()
        _parse_line(line, directive)
        position = _parse_blocks(lines, position + 1, directive)
        directives.append(directive)
    return directives


def _parse_line(line: str, directive: Directive) -> None:
    directive.command, _, rest = line.partition(" ")
    for match in _ARGUMENT.finditer(rest):
        name, value = match.group(1), match.group(2)
        if value is None:
            directive.arguments.append(name)
        else:
            parts = value.strip("()").split(",") if value.startswith("(") else [value]
            directive.keys[name] = [part.strip() for part in parts if part.strip()]


def _parse_blocks(lines: list[str], position: int, directive: Directive) -> int:
    start = position
    while lines[position] != "----":
        position += 1
    directive.input = "\n".join(lines[start:position])
    position += 1
    start = position
    if position < len(lines) and lines[position] == "----":
        start = position = position + 1
        while lines[position : position + 2] != ["----", "----"]:
            position += 1
        directive.expected = "\n".join(lines[start:position])
        return position + 2
    while position < len(lines) and lines[position].strip():
        position += 1
    directive.expected = "\n".join(lines[start:position])
    return position
