"""The seam check of the lint step: fakes are passed in, never patched in.

A patch does not reach what mypyc compiled: its constants are folded, its methods called directly;
the test goes on to pass and shows nothing.  Methods that are written over are found by what mypy
demands there: who silences it patches.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("tests", "benchmarks")
ALLOWED = "# protobuf"
"""Behind a `setattr` of a message's field, whose name is found while the test runs."""
METHOD_ASSIGN = re.compile(r"#\s*type:\s*ignore\[[^]]*\bmethod-assign\b")


def patches(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the words of everything in ``text`` that patches."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr in ("setattr", "delattr"):
                yield node.lineno, f"{ast.unparse(called)}: give what it replaces as an argument"
            elif isinstance(called, ast.Name) and called.id == "setattr":
                if lines[(node.end_lineno or node.lineno) - 1].endswith(ALLOWED):
                    continue
                yield node.lineno, f"setattr: give it as an argument, or say `{ALLOWED}`"
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            module = node.module if isinstance(node, ast.ImportFrom) else ""
            names = [f"{module}.{one.name}" if module else one.name for one in node.names]
            if any("mock" in name.split(".") for name in names):
                yield node.lineno, "mock: pass in a fake"
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and METHOD_ASSIGN.match(token.string):
            yield token.start[0], "a method is written over: let the fake take what it needs"


def main() -> int:
    """Print every complaint; the status says whether there was one."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {words}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, words in patches(path.read_text(encoding="utf-8"))
    ]
    print("\n".join(found) or "patches: none")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
