"""The rules of the house: one direction, commands in front and parts behind, no large rooms."""

import ast
import re

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


RUNNERS = {"clients/system/frames.py", "load_tests/harness/slow_requests.py"}


def path_edits(text):
    """Return the statements of a program that mention Python's search path."""
    found = []
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and not hasattr(node, "body") and not docstring:
            statement = ast.unparse(node)
            if re.search(r"\bsys(\W+| import )path\b|PYTHONPATH|\bsite\b", statement):
                found.append(statement)
    return found


@pytest.mark.parametrize(
    "statement",
    [
        "sys.path.append('.')",
        "sys.path[0] = '.'",
        "sys.path += ['.']",
        "from sys import path",
        "def late():\n    setattr(sys, 'path', [])",
        "vars(sys)['path'].insert(0, '.')",
        "import site",
        "run(line, env={'PYTHONPATH': '.'})",
    ],
)
def test_each_way_to_edit_the_path_is_seen(statement):
    assert path_edits(statement) != []


def test_the_path_is_edited_in_one_place():
    edits = {str(file.relative_to(ROOT)): path_edits(file.read_text()) for file in WRITTEN}
    editors = {name for name, found in edits.items() if found}
    assert editors == {"notebooks/lab/__init__.py", *RUNNERS}
    for name in RUNNERS:  # they do what Python does when it starts a program
        [edit] = edits[name]
        assert edit.startswith("sys.path[0] = ")


@pytest.mark.parametrize("floor", FLOORS)
def test_the_top_of_a_folder_reads_as_a_table_of_contents(floor):
    made = {"results", "__pycache__"}
    entries = {path.name for path in (ROOT / floor).glob("[!.]*")} - made
    assert len(entries) <= 12
    page = (ROOT / floor / "README.md").read_text()
    assert [name for name in entries - {"README.md"} if name not in page] == []
