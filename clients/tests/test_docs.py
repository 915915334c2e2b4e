"""What the pages name exists: files, headings, commands and their options, tests, steps, terms."""

import itertools
import json
import re
import shutil
import tomllib

import pytest

from clients.contract.checks import CHECKS
from clients.system import processes
from clients.tests.steps_page import bundle_of
from clients.trace.page import STEPS
from conftest import cli

ROOT = processes.ROOT
FRONT = ROOT / "README.md"
PAGES = sorted([FRONT, *ROOT.glob("[0-9a-z]*/**/*.md")])
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
OUTPUTS = {"my/server.py", "path/to/server.py", "04_mine/server.py"}  # the reader's own
KERNEL = ("tcp_", "sk_", "cpu_", "listen_", "accept_", "ip_")  # its names, and the system's
LINK = re.compile(r'(?:\]\(|src="|srcset=")([^)\s"]+)')
COMMAND = re.compile(r"python3? (?:-m |\.\./)?([\w/.]+)([^\n|;&`]*)")


def text_of(page):
    """Return the Markdown of a page, or of a notebook's cells."""
    if page.suffix == ".md":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def anchors(text):
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(
        r"^#+ (.*)", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE
    )
    words = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in words}


def dead_links(page, text):
    """Return the links of a page's text that lead to no file, or to no heading of one."""
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        file = page.parent / path if path else page
        if "://" in link:
            continue
        if not file.exists() or (
            file.suffix == ".md" and anchor and anchor not in anchors(text_of(file))
        ):
            yield link


def wrong_commands(text):
    """Return what the commands of a text name that does not exist: programs, options, names."""
    for program, rest in COMMAND.findall(text):
        if (sources := sources_of(program)) is None:
            yield program
            continue
        known = "".join(source.read_text() for source in sources)
        words = re.sub(r'"[^"]*"', "", rest).replace("'", " ").split()
        given = (word for word in words if word.startswith("--"))
        yield from (word for word in given if not is_defined(word, known))
        models = [word for word in words if word in processes.models()]
        names = [word for word in words if re.fullmatch(r"[a-z]\w*_\w+|[a-z]+(-[a-z]+)+", word)]
        if program == "clients.contract":
            own = re.findall(
                r"^def (\w+)", text, re.MULTILINE
            )  # which the page lets a reader write
            known = {*CHECKS, *own}
            yield from (name for name in names if name not in known and name[:3] != "my_")
        if program == "clients.break_it" and models:
            faults = tomllib.loads((ROOT / models[0] / "faults.toml").read_text())
            yield from (name for name in names if name not in faults)


def is_defined(option, source):
    """Return True if a source defines an option: by "--name", or name=, as the alternatives do."""
    return f'"{option}"' in source or f"{option[2:].replace('-', '_')}=" in source


def sources_of(program):
    """Return the files in which a program's options are defined; None if there is no program."""
    parts = [*ROOT.glob("clients/console/*.py"), *ROOT.glob("load_tests/harness/*.py")]
    if program.endswith(".py"):
        file = ROOT / program
        found = [file, *file.parent.glob("common.py")] if file.is_file() else None
        return [] if program in OUTPUTS else found
    if program.split(".")[0] not in ("clients", "load_tests", "notebooks"):
        return []  # venv, pytest
    path = ROOT / program.replace(".", "/")
    if path.is_dir():
        return [*path.glob("*.py"), *parts]
    return [path.with_suffix(".py"), *parts] if path.with_suffix(".py").is_file() else None


@pytest.fixture(params=[*PAGES, *NOTEBOOKS], ids=lambda page: str(page.relative_to(ROOT)))
def page(request):
    return request.param


def test_each_link_leads_somewhere(page):
    assert list(dead_links(page, text_of(page))) == []


@pytest.mark.parametrize("link", ["gone.md", "#gone", "clients/README.md#gone"])
def test_a_link_that_leads_nowhere_is_seen(link):
    assert list(
        dead_links(FRONT, f"[a](#reading-order), [b](clients/CONTRACT.md#exercises), [c]({link})")
    ) == [link]


def test_each_command_names_what_exists(page):
    assert list(wrong_commands(text_of(page))) == []


@pytest.mark.parametrize(
    "command",
    [
        "-m clients.gone",
        "04_gone/server.py",
        "-m clients.crowd --gone",
        "03_epoll/server.py --quiet --gone 1024'",
        "-m clients.contract 01_blocking it_is_gone",
        "-m clients.break_it 03_epoll gone-with-the-wind",
    ],
)
def test_a_command_that_names_what_does_not_exist_is_seen(command):
    assert "gone" in "".join(wrong_commands(f"```sh\n.venv/bin/python3 {command}\n```"))


def test_each_test_and_check_that_a_page_names_exists(page):
    known = set(CHECKS)
    for file in ROOT.glob("[0-9a-z]*/**/test_*.py"):
        known |= set(re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE))
        known.add(file.stem)
    for name in re.findall(r"`(test_\w+|\w+(?:_\w+){3,})`", text_of(page)):
        assert name in known or name.startswith(
            ("tcp_", "sk_", "cpu_", "listen_", "accept_", "ip_")
        ), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_chinese_term_is_in_the_glossary(page):
    glossary = (ROOT / "notebooks/GLOSSARY.md").read_text()
    terms = set(re.findall(r"[\u4e00-\u9fff]+", page.read_text()))
    assert {term for term in terms if term not in glossary} == set()


def test_each_lesson_ends_with_what_comes_next_in_the_reading_order():
    order = re.findall(r"^\| \d \| \[.*?\]\((.*?)\)", FRONT.read_text(), re.MULTILINE)
    pages = [ROOT / link for link in order]
    lessons = [pair for pair in itertools.pairwise(pages) if pair[0].suffix == ".md"]
    assert len(lessons) == 3
    for lesson, after in lessons:
        last = re.findall(r"\]\((.*?)\)", lesson.read_text())[-1]
        assert (lesson.parent / last).resolve() == after, lesson


FRAMES = [  # what makes 02 a server of frames, as the exercise in CONTRACT.md wants it
    (
        "def handle(",
        """def frame(conn):
    head = conn.recv(4, socket.MSG_WAITALL)
    size = int.from_bytes(head)
    if len(head) == 4 and not 1 <= size <= 65536:
        raise OSError(f"a frame of {size} bytes")
    message = conn.recv(size, socket.MSG_WAITALL) if len(head) == 4 else b""
    return message if len(message) == size else b""


def handle(""",
    ),
    ("chunk := conn.recv(1024)", "chunk := frame(conn)"),
    (
        "conn.sendall(greet(chunk))",
        "conn.sendall(len(reply := greet(chunk)).to_bytes(4) + reply)",
    ),
]


@pytest.mark.slow
def test_the_check_of_the_frames_exercise_passes_with_frames_only(tmp_path):
    """The check of exercise 7 runs in a reader's folders, one for each of three servers."""
    plain = processes.find_server("02_threaded").read_text()
    sound = plain
    for was, now in FRAMES:
        assert sound.count(was) == 1
        sound = sound.replace(was, now)
    servers = {"plain": plain, "sound": sound, "off_by_one": sound.replace("<= 65536", "< 65536")}
    check = (ROOT / "clients" / "tests" / "frames_exercise.py").read_text()
    shutil.copytree(ROOT / "clients", tmp_path / "clients")
    for name in ("conftest.py", ".pytest.ini"):
        shutil.copy(ROOT / name, tmp_path)
    for name, source in servers.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "server.py").write_text(source)
        (folder / "test_frames.py").write_text(check.replace("my_frames", name))
    done = cli("pytest", "-q", "-rA", "-p", "no:cacheprovider", *servers, cwd=tmp_path)
    outcomes = re.findall(r"^(PASSED|FAILED) (\w+)/", done.stdout, re.MULTILINE)
    counts = {name: [found for found, folder in outcomes if folder == name] for name in servers}
    assert counts["plain"] == ["FAILED"] * 5, done.stdout
    assert counts["sound"] == ["PASSED"] * 5, done.stdout
    assert sorted(counts["off_by_one"]) == ["FAILED"] + ["PASSED"] * 4, done.stdout


STEP = re.compile(r"steps\.html#\w+=(\w+)&model=(\w+)&step=(\d+)")
LESSONS = [ROOT / "notebooks/3_models.ipynb", *ROOT.glob("0[1-3]*/README.md")]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.parent.name)
def test_a_link_to_a_step_leads_to_one(lesson):
    recordings = bundle_of(STEPS.read_text())["recordings"]
    links = STEP.findall(text_of(lesson))
    assert len(links) == text_of(lesson).count("steps.html#")
    assert links
    for scenario, model, step in links:
        assert 1 <= int(step) <= len(recordings[scenario][model])
