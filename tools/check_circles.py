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


def imported(tree: ast.AST, package: str, known: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules of ``known`` that ``tree`` names; ``from package import module`` is one.

    ``package``: the one that ``tree`` lies in, where its relative imports begin.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            whence = _whence(node, package)
            names = [f"{whence}.{alias.name}" for alias in node.names]
            if any(name not in known for name in names) and whence in known:
                yield whence
            yield from (name for name in names if name in known)


def _whence(node: ast.ImportFrom, package: str) -> str:
    """Return the absolute name of what is imported from."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def imports(known: Mapping[str, Path]) -> dict[str, set[str]]:
    """Return what each module of ``known`` imports of them."""
    graph = {}
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        graph[name] = set(imported(tree, package, known))
    return graph


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
