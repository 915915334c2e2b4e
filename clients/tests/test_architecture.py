"""The rules of the house: one direction, commands in front and parts behind, no large rooms."""

import ast
import json
import re

import pytest

from clients.console.palette import MODELS
from clients.system.processes import ROOT

FLOORS = ["clients", "load_tests", "notebooks"]  # each may import from those before it
PACKAGES = {name: name for name in FLOORS} | {"lab": "notebooks"}
FILES = [file for floor in FLOORS for file in sorted((ROOT / floor).rglob("*.py"))]
CONSOLE = sorted(file.stem for file in (ROOT / "clients/console").glob("*.py"))
WRITTEN = [file for file in FILES if not {"tests", "alternatives"} & set(file.parts)]


def imported(text):
    """Return the names that a program imports, with their modules."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


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


HARNESS = "load_tests.harness."
MEASURES = {HARNESS + "runs", HARNESS + "monitor", "clients.system.processes"}
SEPARATE = {  # module: what it must not import
    **{
        HARNESS + name: MEASURES
        for name in ("charts", "evaluation", "figures", "phrases", "report")
    },
    HARNESS + "stats": MEASURES | {"clients.console.formatting", HARNESS + "charts"},
    **{f"clients.console.{name}": {"clients.system"} for name in CONSOLE},
}


def source_of(module):
    return (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()


def crossed(text, barred):
    """Return the imports of a program that are barred, or parts of what is."""
    return [
        name for name in imported(text) if any(f"{name}.".startswith(f"{one}.") for one in barred)
    ]


@pytest.mark.parametrize("module", SEPARATE)
def test_what_draws_does_not_measure_and_what_computes_does_not_format(module):
    assert crossed(source_of(module), SEPARATE[module]) == []


def test_a_measurement_in_what_draws_is_seen():
    assert crossed("from load_tests.harness import charts, runs", MEASURES) != []
    assert crossed("from clients.system.processes import spawn", MEASURES) != []
    assert crossed("def late():\n    import load_tests.harness.monitor", MEASURES) != []
    assert crossed("from load_tests.harness.runs_of import one", MEASURES) == []


RUNNERS = {"clients/system/frames.py", "load_tests/harness/slow_requests.py"}


MENTION = r"\bsys\b|PYTHONPATH|\bsite\b"  # in each file that mentions the path


def path_edits(text):
    """Return the statements of a program that mention Python's search path."""
    found = []
    for node in ast.walk(ast.parse(text)) if re.search(MENTION, text) else ():
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
    assert len([name for name in entries if not name.endswith(".md")]) <= 12
    page = (ROOT / floor / "README.md").read_text()
    assert [name for name in entries - {"README.md"} if name not in page] == []


OLD_NAMES = """
    door welcome heard newcomers? ghosts? guests? puppets? chatterbox scoreboard idlers asker fate
    tracee recast knocking naps xray blast crosscheck watcher observer outoftime patience relatives
    serves_together serves_others descriptors_at_rest a_while ask_alone make_room last_words
    by_chance test_(?:house|strangers|trouble|lessons|nothing_left|machines)
    peers seldom anew beside for-ever so-many (?:breaks?|broken?)-off thrown-away left-waiting
    left-alone interest-set interpreter-lock completed-queue pool-of-threads least-time
    积压上限 消息边界 同步报文
""".replace("-", r"[\s_]+")
OLD_NAME = re.compile(rf"(?<![^\W_])(?:{'|'.join(OLD_NAMES.split())})(?![^\W_])", re.IGNORECASE)
KINDS = {".py", ".md", ".ipynb", ".toml", ".j2", ".js", ".css"}
TEXTS = [*ROOT.glob("*"), *(one for name in [*FLOORS, *MODELS] for one in (ROOT / name).rglob("*"))]
TEXTS = sorted(
    one for one in TEXTS if one.suffix in KINDS and "results" not in one.relative_to(ROOT).parts
)


def words_of(file):
    """Return the text of a file; of a notebook, that of its cells without their outputs."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".ipynb":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def test_each_concept_has_one_word_and_the_old_ones_are_gone():
    assert len(TEXTS) > 100
    found = {str(file.relative_to(ROOT)): OLD_NAME.findall(words_of(file)) for file in TEXTS}
    del found["clients/tests/test_architecture.py"]
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("text", ["a Ghost", "accept_door()", "thrown\naway", "break_off = 1"])
def test_an_old_name_is_seen(text):
    assert OLD_NAME.search(text)


@pytest.mark.parametrize("text", ["indoor", "the peer", "a_whiles", "break it off"])
def test_other_words_are_no_old_names(text):
    assert not OLD_NAME.search(text)
