"""The circle check of the lint step: no module of ours may import itself through others.

Every import statement counts, those under ``TYPE_CHECKING`` and within functions, too: a circle
of types is one subject that was cut in the wrong place.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "etcdtw"


def modules(root: Path, package: str) -> dict[str, Path]:
    """Return the file of each module of ``package``, which lies in ``root``."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST, known: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules of ``known`` that ``tree`` names; ``from package import module`` is one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            if any(name not in known for name in names) and node.module in known:
                yield node.module
            yield from (name for name in names if name in known)


def imports(known: Mapping[str, Path]) -> dict[str, set[str]]:
    """Return what each module of ``known`` imports of them."""
    return {
        name: set(imported(ast.parse(path.read_text(encoding="utf-8")), known))
        for name, path in known.items()
    }


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that all reach each other, by Tarjan's algorithm."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        numbers[name] = lowest[name] = len(numbers)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in numbers:
                visit(target)
                lowest[name] = min(lowest[name], lowest[target])
            elif target in stack:
                lowest[name] = min(lowest[name], numbers[target])
        if lowest[name] == numbers[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1 or name in graph[name]:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in numbers:
            visit(name)
    return found


def main() -> int:
    """Print every circle; the status says whether there was one."""
    found = circles(imports(modules(ROOT, PACKAGE)))
    for group in found:
        print(f"{len(group)} modules import one another in a circle: {', '.join(group)}")
    if not found:
        print("circles: none")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
