"""The package check of the lint step: no package has more modules than one can keep in mind.

Packages of the pure cores, which `setup.cfg`'s purity contract names, may have more: their parts
know each other well.  ``__init__`` does not count; it holds one sentence and no code.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

MODULES_MAX = 15
PURE_MODULES_MAX = 25
ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "etcdtw"


def pure_packages(setup: Path) -> list[str]:
    """Return what the purity contract of ``setup`` names."""
    parser = ConfigParser()
    parser.read(setup, encoding="utf-8")
    return parser["importlinter:contract:pure"]["source_modules"].split()


def complaints(root: Path, package: str, pure: list[str]) -> Iterator[str]:
    """Yield what is wrong with the packages of ``package``, which lies in ``root``."""
    for folder in sorted([root / package, *(root / package).rglob("*")]):
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        if not modules:
            continue
        name = ".".join(folder.relative_to(root).parts)
        is_pure = any(name == core or name.startswith(core + ".") for core in pure)
        stop = PURE_MODULES_MAX if is_pure else MODULES_MAX
        if len(modules) > stop:
            yield f"{name}: {len(modules)} modules, stop at {stop}: make packages by subject"
        yield from _about_sentence(name, folder / "__init__.py", is_top=name == package)


def _about_sentence(name: str, path: Path, *, is_top: bool) -> Iterator[str]:
    """Yield what is wrong with the sentence that says what a package holds."""
    if not path.exists():
        yield f"{name}: no __init__.py that says in a sentence what it holds"
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not ast.get_docstring(tree):
        yield f"{name}: its __init__.py does not say what it holds"
    if len(tree.body) > 1 and not is_top:
        yield f"{name}: code in __init__.py: it would be interpreted, and imported by everybody"


def main() -> int:
    """Print every complaint; the status says whether there was one."""
    found = list(complaints(ROOT, PACKAGE, pure_packages(ROOT / "setup.cfg")))
    print("\n".join(found) if found else "packages: clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
