"""Where etcd-io/raft's golden scripts are, and how strictly their output is compared.

They lie in `raft-testdata` with their licence (Apache-2.0), as they are.  Tier A: lines that
its core logs are left out on both sides, and ``ok`` means "no output".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support.datadriven import Directive, parse_script

SCRIPTS: Final = Path(__file__).resolve().parent / "raft-testdata"
SCRIPT_COUNTS: Final = {"interaction": 28, "confchange": 9, "quorum": 4}

_LOG_LINE: Final = re.compile(r"^\s*(DEBUG|INFO|WARN|ERROR|FATAL) ")


def scripts_found() -> dict[str, int]:
    """Return how many scripts of each kind are there."""
    return {kind: len(list((SCRIPTS / kind).glob("*.txt"))) for kind in SCRIPT_COUNTS}


def script_params(kind: str) -> list[object]:
    """Return one pytest parameter a script of ``kind``."""
    return [pytest.param(path, id=path.stem) for path in sorted((SCRIPTS / kind).glob("*.txt"))]


def tier_a(output: str) -> list[str]:
    """Return the lines of ``output`` that count."""
    lines = [line.rstrip() for line in output.split("\n") if line.strip()]
    lines = [line for line in lines if not _LOG_LINE.match(line)]
    return [] if lines == ["ok"] else lines


def run_script(path: Path, run: Callable[[Directive], str]) -> None:
    """Run every directive of ``path``; the first difference fails, with its line number."""
    for directive in parse_script(path):
        output = run(directive)
        place = f"{path.name}:{directive.line_number} {directive.command}"
        assert tier_a(output) == tier_a(directive.expected), place
