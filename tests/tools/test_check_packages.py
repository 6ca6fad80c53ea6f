"""How many modules a package may have, and what its ``__init__`` is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_packages import (
    MODULES_MAX,
    PURE_MODULES_MAX,
    ROOT,
    complaints,
    pure_packages,
)


def make_package(root: Path, name: str, modules: int, init: str = '"""A sentence."""\n') -> None:
    folder = root.joinpath(*name.split("."))
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(init, encoding="utf-8")
    for number in range(modules):
        (folder / f"module_{number}.py").touch()


def found(root: Path, *pure: str) -> list[str]:
    return list(complaints(root, "house", list(pure)))


@pytest.mark.parametrize(
    ("modules", "is_too_many"), [(MODULES_MAX, False), (MODULES_MAX + 1, True)]
)
def test_a_package_has_fifteen_modules_at_most(
    tmp_path: Path, modules: int, is_too_many: bool
) -> None:
    make_package(tmp_path, "house.room", modules)
    assert bool(found(tmp_path)) is is_too_many


@pytest.mark.parametrize("name", ["house.core", "house.core.part"])
def test_a_pure_core_has_twenty_five_at_most_in_each_of_its_packages(
    tmp_path: Path, name: str
) -> None:
    make_package(tmp_path, name, PURE_MODULES_MAX)
    assert found(tmp_path, "house.core") == []
    assert found(tmp_path, "house.co") != []
    (tmp_path.joinpath(*name.split(".")) / "one_more.py").touch()
    assert found(tmp_path, "house.core") == [
        f"{name}: 26 modules, stop at 25: make packages by subject"
    ]


def test_modules_of_packages_within_do_not_count(tmp_path: Path) -> None:
    make_package(tmp_path, "house.room", MODULES_MAX)
    make_package(tmp_path, "house.room.part", MODULES_MAX)
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("init", "why"),
    [
        ("", "house.room: its __init__.py does not say what it holds"),
        (
            '"""A sentence."""\nimport os\n',
            "house.room: code in __init__.py: it would be interpreted, and imported by everybody",
        ),
    ],
)
def test_a_package_says_in_its_init_what_it_holds_and_no_more(
    tmp_path: Path, init: str, why: str
) -> None:
    make_package(tmp_path, "house.room", 1, init)
    assert found(tmp_path) == [why]


def test_a_package_without_an_init_is_named(tmp_path: Path) -> None:
    make_package(tmp_path, "house.room", 1)
    (tmp_path / "house" / "room" / "__init__.py").unlink()
    assert found(tmp_path) == ["house.room: no __init__.py that says in a sentence what it holds"]


def test_the_purity_contract_names_the_pure_cores() -> None:
    pure = pure_packages(ROOT / "setup.cfg")
    assert {"etcdtw.raft", "etcdtw.rafthttp", "etcdtw.config"} <= set(pure)
    assert "etcdtw.storage" not in pure
