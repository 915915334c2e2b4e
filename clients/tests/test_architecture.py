"""The rules of the house: one direction, commands in front and parts behind, no large rooms."""

import ast

import pytest

from clients.system.processes import ROOT

FLOORS = ["clients", "load_tests", "notebooks"]  # each may import from those before it
PACKAGES = {name: name for name in FLOORS} | {"lab": "notebooks"}
FILES = [file for floor in FLOORS for file in sorted((ROOT / floor).rglob("*.py"))]
WRITTEN = [file for file in FILES if not {"tests", "alternatives"} & set(file.parts)]


def imported(text):
    """Return the names of the modules that a program imports."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def against(floor, text):
    """Return the imports of a program on this floor that go up."""
    allowed = FLOORS[: FLOORS.index(floor) + 1]
    packages = {name: PACKAGES.get(name.split(".")[0], floor) for name in imported(text)}
    return [name for name, package in packages.items() if package not in allowed]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_is_imported_against_the_direction(file):
    assert against(file.relative_to(ROOT).parts[0], file.read_text()) == []


def test_an_import_against_the_direction_is_seen():
    assert against("clients", "from load_tests.harness import score") != []
    assert against("load_tests", "def late():\n    import lab.helpers") != []
    assert against("notebooks", "from load_tests.harness import score") == []


def test_the_path_is_edited_in_one_place():
    edits = [file for file in WRITTEN if "sys.path." in file.read_text()]
    assert [str(file.relative_to(ROOT)) for file in edits] == ["notebooks/lab/__init__.py"]


@pytest.mark.parametrize("floor", FLOORS)
def test_the_top_of_a_folder_reads_as_a_table_of_contents(floor):
    made = {"results", "__pycache__"}
    entries = {path.name for path in (ROOT / floor).glob("[!.]*")} - made
    assert len(entries) <= 12
    page = (ROOT / floor / "README.md").read_text()
    assert [name for name in entries - {"README.md"} if name not in page] == []
