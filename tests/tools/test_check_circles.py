"""What counts as a circle of modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_circles import circles, imports, modules


def found(root: Path, **files: str) -> list[list[str]]:
    """Return the circles of package ``house``, whose modules are ``files``."""
    package = root / "house"
    for name, text in {"__init__": "", **files}.items():
        path = package / (name.replace("__", "/") + ".py" if name != "__init__" else name + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return circles(imports(modules(root, "house")))


def test_modules_that_know_those_built_before_them_are_no_circle(tmp_path: Path) -> None:
    assert not found(
        tmp_path,
        a="import os",
        b="from house import a\nfrom house.a import thing",
        c="import house.a\nimport house.b as other",
    )


BACK = {
    "plainly": "from house.a import thing",
    "as a module": "from house import a",
    "by its whole name": "import house.a",
    "for its types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house.a",
    "within a function": "def f():\n    from house.a import thing",
    "from beside it": "from .a import thing",
    "from its own package": "from . import a",
}


@pytest.mark.parametrize("back", BACK.values(), ids=BACK.keys())
def test_every_way_back_closes_a_circle(tmp_path: Path, back: str) -> None:
    assert found(tmp_path, a="from house import b", b=back, c="") == [["house.a", "house.b"]]


def test_a_way_back_over_another_package_closes_a_circle(tmp_path: Path) -> None:
    files = {"a": "import house.b", "b": "import house.rooms.c", "rooms__c": "from .. import a"}
    assert found(tmp_path, **files) == [["house.a", "house.b", "house.rooms.c"]]


def test_a_module_that_imports_itself_is_a_circle(tmp_path: Path) -> None:
    assert found(tmp_path, a="import house.a") == [["house.a"]]
