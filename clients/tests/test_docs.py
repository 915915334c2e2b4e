"""What the lessons name is there: files, programs, tests and claims."""

import itertools
import re
import shutil
import subprocess
import sys

import pytest

from clients.contract.checks import CHECKS
from clients.system import processes
from clients.trace.page import KEPT, data_of

PAGES = sorted([processes.ROOT / "README.md", *processes.ROOT.glob("[0-9a-z]*/**/*.md")])
OUTPUTS = {"my/server.py", "path/to/server.py", "04_mine/server.py"}  # the reader's own


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(processes.ROOT)))
def page(request):
    return request.param


def test_each_link_leads_somewhere(page):
    for link in re.findall(r"(?:\]\(|src=\"|srcset=\")([^)#\s\"]+)", page.read_text()):
        assert "://" in link or (page.parent / link).exists(), link


def test_each_program_that_a_command_runs_is_there(page):
    for program in re.findall(r"python3? ([\w/]+\.py)", page.read_text()):
        assert program in OUTPUTS or (processes.ROOT / program).is_file(), program


def test_each_test_and_claim_that_a_lesson_names_exists(page):
    known = set(CHECKS)
    for file in processes.ROOT.glob("[0-9a-z]*/**/test_*.py"):
        known |= set(re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE))
        known.add(file.stem)
    for name in re.findall(r"`(test_\w+|\w+(?:_\w+){3,})`", page.read_text()):
        assert name in known or name.startswith(("tcp_", "cpu_", "listen_", "accept_")), name


def test_each_lesson_ends_with_what_comes_next_in_the_reading_order():
    front = (processes.ROOT / "README.md").read_text()
    order = re.findall(r"^\| \d \| \[.*?\]\((.*?)\)", front, re.MULTILINE)
    pages = [processes.ROOT / link for link in order]
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


def test_the_check_of_frames_on_the_page_tells_frames_from_none(tmp_path):
    page = (processes.ROOT / "clients" / "CONTRACT.md").read_text()
    shutil.copytree(processes.ROOT / "clients", tmp_path / "clients")
    for name in ("conftest.py", ".pytest.ini"):
        shutil.copy(processes.ROOT / name, tmp_path)
    mine = tmp_path / "my_frames"
    mine.mkdir()
    [check] = re.findall(r"```python\n(.*?)```", page.partition("#### 7. ")[2], re.DOTALL)
    (mine / "test_frames.py").write_text(check)
    source = processes.find("02_threaded").read_text()
    assert verdict(mine, source) == "5 failed"
    for was, now in FRAMES:
        assert source.count(was) == 1
        source = source.replace(was, now)
    assert verdict(mine, source) == "5 passed"
    off_by_one = source.replace("<= 65536", "< 65536")
    assert verdict(mine, off_by_one) == "1 failed,"


def verdict(folder, source):
    """Return how pytest ends in a reader's folder, with this source as its server."""
    (folder / "server.py").write_text(source)
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder.name]
    done = subprocess.run(line, cwd=folder.parent, capture_output=True, text=True, timeout=120)
    return " ".join(done.stdout.splitlines()[-1].split()[:2])


STEP = re.compile(r"steps\.html#story=(\w+)&model=(\w+)&step=(\d+)")
WALKS = [processes.ROOT / "notebooks/3_models.ipynb", *processes.ROOT.glob("0[1-3]*/README.md")]


@pytest.mark.parametrize("lesson", WALKS, ids=lambda path: path.parent.name)
def test_a_link_to_a_step_leads_to_one(lesson):
    recordings = data_of(KEPT.read_text())["recordings"]
    links = STEP.findall(lesson.read_text())
    assert links
    for story, model, step in links:
        assert 1 <= int(step) <= len(recordings[story][model])
