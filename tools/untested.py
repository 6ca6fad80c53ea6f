"""Lists the modules that no test imports, each with the reason why that is right.

`make untested` prints them; a module without a reason, or a reason without need, fails lint.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "etcdtw"
REASONS: Mapping[str, str] = {
    "client": """a part of the client within the process, which tests/client drives whole:
        loopback_call""",
    "config": """a step of `config.configure`, which tests/config drives whole:
        checks environment file settings tls_checks""",
    "http2": """a part of `Connection`, which tests/http2 drives from both sides:
        receiving sending static_table stats""",
    "mvcc": """a part of `Store` or of the hub, which are compared with a model:
        ranges txn writer watch.history watch.progress watch.source""",
    "node": """wired by `build_node`; tests/node drive it through the node and its loop:
        duties.damage duties.lease_expiry facade intake.seams intake.stepping loop.caches
        loop.leadership loop.loop loop.peers loop.slowness loop.ticks own_proposals""",
    "raft": """a part of `RawNode`, which the scripts and tests/raft drive whole:
        election follower leader replication step""",
    "rpc": """reached through the service that uses it (tests/rpc):
        leader_loss""",
    "server": """a step of a member's start, seen where members start (tests/integration, plugins):
        member.joining member.leader_line member.opened member.runtime member.users metrics.peers
        services.listeners
        services.peering services.readiness state_mend""",
    "storage": """reached through the state, the log or the snapshots that use it (tests/storage):
        building.takeover log.settler state.piece_reader state.step_reader""",
    "transport": """reached through the port, the peer or the listener that use it:
        peer.link tls.rotation""",
}
"""By room: the reason, and behind the colon the modules for which it holds."""


def modules(root: Path, package: str) -> set[str]:
    """Return the names of all modules of ``package``, without its packages' sentences."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts)
        for path in (root / package).rglob("*.py")
        if path.name != "__init__.py"
    }


def imported(texts: Iterable[str]) -> set[str]:
    """Return every dotted name that one of ``texts`` imports."""
    found: set[str] = set()
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                found.update(one.name for one in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
                found.update(f"{node.module}.{one.name}" for one in node.names)
    return found


def excused(reasons: Mapping[str, str], package: str) -> dict[str, str]:
    """Return the reason of each module that ``reasons`` names."""
    found = {}
    for room, text in reasons.items():
        reason, _, names = text.rpartition(":")
        found.update({f"{package}.{room}.{name}": reason for name in names.split()})
    return found


def complaints(untested: set[str], reasons: Mapping[str, str]) -> Iterator[str]:
    """Yield what lacks a reason, and what has one without need."""
    for name in sorted(untested - set(reasons)):
        yield f"{name}: no test imports it; test it, or say why not in tools/untested.py"
    for name in sorted(set(reasons) - untested):
        yield f"{name}: a test imports it, or it is gone: strike it out in tools/untested.py"


def main() -> int:
    """Print the list and every complaint; the status says whether there was one."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    untested = modules(ROOT, PACKAGE) - imported(texts)
    reasons = excused(REASONS, PACKAGE)
    if "--check" not in sys.argv:
        for name in sorted(untested & set(reasons)):
            print(f"{name}: {reasons[name]}")
    found = list(complaints(untested, reasons))
    print("\n".join(found) if found else f"untested: {len(untested)} modules, each with a reason")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
