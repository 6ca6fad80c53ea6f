"""Where each RPC, field and page of real etcd is exercised: the first test file that does.

    python -m tests.support.exercised        the whole table

A test exercises a method that it names, a field that it sets or reads in a file where it names the
field's message (or the method that the message belongs to), a page that it names.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from tests.support.surface import (
    RecordedRpc,
    recorded_fields,
    recorded_pages,
    recorded_rpcs,
)

TESTS: Final = Path(__file__).resolve().parent.parent
NO_TESTS: Final = frozenset(("exercised.py", "surface.py", "test_protocol_surface.py"))
"""Those that look for others."""


@cache
def texts() -> dict[str, str]:
    """Return the text of each test file, by its path."""
    return {
        str(path.relative_to(TESTS)): path.read_text(encoding="utf-8")
        for path in sorted(TESTS.rglob("*.py"))
        if path.name not in NO_TESTS
    }


def where_rpc(rpc: RecordedRpc) -> str:
    """Return a file that calls the method; empty: none does."""
    service, method = rpc.path.split(".")[-1].split("/")
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method).lower()
    return _first(
        [
            rf'{service}/{method}\b|/{method}"|"{method}"',
            *[rf'{route}\b"' for route in rpc.routes],
            rf"\.{snake}\(",
        ]
    )


def where_field(message: str, field: str, rpcs: Sequence[RecordedRpc]) -> str:
    """Return a file that sets or reads the field; empty: none does."""
    short = message.rpartition(".")[2]
    owners = {short}
    for rpc in rpcs:
        if message in (rpc.request, rpc.response):
            owners.add(rpc.path.rpartition("/")[2])
    named = "|".join(sorted(owners))
    used = re.compile(rf'\b{field}=|\.{field}\b|"{field}"|\b{field}:')
    for path, text in texts().items():
        if field in text and re.search(rf"\b(?:{named})\b", text) and used.search(text):
            return path
    return ""


def where_page(path: str) -> str:
    """Return a file that asks for the page; empty: none does."""
    return _first([rf'{re.escape(path)}(?:["?])'])


def _first(patterns: Iterable[str]) -> str:
    for pattern in patterns:
        for path, text in texts().items():
            if re.search(pattern, text):
                return path
    return ""


def main() -> int:
    """Print the table; 1 when something is exercised nowhere."""
    rpcs = recorded_rpcs()
    rows = [(rpc.path, where_rpc(rpc)) for rpc in rpcs]
    rows += [(f"{m}.{f}", where_field(m, f, rpcs)) for m, f in recorded_fields()]
    rows += [(f"{port} {path}", where_page(path)) for port, path in recorded_pages()]
    for name, where in rows:
        print(f"{name:70} {where or 'NOWHERE'}")
    nowhere = sum(not where for _, where in rows)
    print(f"{len(rows)} rows, {nowhere} exercised nowhere")
    return 1 if nowhere else 0


if __name__ == "__main__":
    sys.exit(main())
