"""The rooms at the root, their links, the wheel's list and the import contract name the same folders (ADR 0001)."""

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINKS = ROOT / "src" / "postroom"


def rooms() -> set[str]:
    """Whatever Python could import from the root is a room: there is no other package beside them."""
    return {path.parent.name for path in ROOT.glob("*/__init__.py")}


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_rooms_of_the_design_are_there() -> None:
    assert rooms() >= {"cli", "dlq", "inbox", "messaging", "outbox", "relay", "testing"}


def test_every_room_has_a_relative_link_and_every_link_a_room() -> None:
    links = {path.name: str(path.readlink()) for path in LINKS.iterdir() if path.is_symlink()}
    assert links == {room: f"../../{room}" for room in rooms()}


def test_the_package_folder_holds_nothing_but_the_links() -> None:
    real = {path.name for path in LINKS.iterdir() if not path.is_symlink()} - {"__pycache__"}
    assert real == {"__init__.py", "py.typed"}


def test_the_wheel_takes_every_room(pyproject: dict[str, Any]) -> None:
    included = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {room: f"postroom/{room}" for room in rooms()}


def test_every_room_has_one_place_in_the_import_contract(pyproject: dict[str, Any]) -> None:
    layers = next(
        contract["layers"]
        for contract in pyproject["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    placed = re.findall(r"[\w.]+", " ".join(layers))
    assert sorted(placed) == sorted(f"postroom.{room}" for room in rooms())


def test_every_room_is_explained_to_contributors() -> None:
    explained = re.findall(r"^\| `(\w+)/` \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(explained) == sorted(rooms())


def test_rooms_import_each_other_relatively() -> None:
    """`from postroom.outbox import …` inside a room would pin it to the name that the rooms have together."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for room in sorted(rooms())
        for path in sorted((ROOT / room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "postroom")
        or (isinstance(node, ast.Import) and any(name.name.split(".")[0] == "postroom" for name in node.names))
    ]
    assert found == []
