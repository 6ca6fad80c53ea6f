"""Holds each room's branch coverage by what starts no process above a floor (`make cover`).

A floor is a little below what was measured when it was set; whoever adds tests may raise it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FLOORS: Mapping[str, float] = {
    "apply": 98,
    "auth": 97,
    "bbolt": 96,
    "client": 96,
    "cluster": 98,
    "config": 98,
    "gateway": 81,
    "grpc": 97,
    "http1": 97,
    "http2": 98,
    "lease": 98,
    "mvcc": 97,
    "node": 96,
    "plugins": 51,
    "raft": 98,
    "rafthttp": 98,
    "rpc": 91,
    "server": 72,
    "storage": 87,
    "transport": 96,
    "wire": 97,
}
"""By room: percent of lines and branches; of `plugins` and `server` the rest runs in processes."""


def by_room(files: Mapping[str, Any]) -> dict[str, float]:
    """Return the percentage of each room, from the ``files`` of coverage's JSON report."""
    covered: dict[str, int] = {}
    wanted: dict[str, int] = {}
    for name, file in files.items():
        parts = Path(name).parts
        if len(parts) < 3 or parts[0] != "etcdtw":
            continue
        found, room = file["summary"], parts[1]
        covered[room] = covered.get(room, 0) + found["covered_lines"] + found["covered_branches"]
        wanted[room] = wanted.get(room, 0) + found["num_statements"] + found["num_branches"]
    return {room: 100 * covered[room] / wanted[room] for room in sorted(wanted) if wanted[room]}


def complaints(measured: Mapping[str, float], floors: Mapping[str, float]) -> Iterator[str]:
    """Yield each room below its floor, and each that has none or is not there."""
    for room in sorted({*measured, *floors}):
        if room not in floors:
            yield f"{room}: has no floor; set one in tools/check_coverage.py"
        elif room not in measured:
            yield f"{room}: is not there any more"
        elif measured[room] < floors[room]:
            yield f"{room}: {measured[room]:.1f} % is below its floor of {floors[room]} %"


def main() -> int:
    """Print the rooms and every complaint; the status says whether there was one."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    measured = by_room(report["files"])
    for room, percent in measured.items():
        print(f"{room:10} {percent:5.1f} %  (floor {FLOORS.get(room, 0):.0f} %)")
    found = list(complaints(measured, FLOORS))
    print("\n".join(found) if found else "coverage: every room is above its floor")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
