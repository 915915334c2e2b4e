"""What the lessons name is there: files, programs, tests and claims."""

import re

import pytest

from clients.contract.claims import CLAIMS
from clients.system import launch

PAGES = sorted([launch.ROOT / "README.md", *launch.ROOT.glob("[0-9a-z]*/**/*.md")])
OUTPUTS = {"my/server.py", "path/to/server.py", "04_mine/server.py"}  # the reader's own


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(launch.ROOT)))
def page(request):
    return request.param


def test_each_link_leads_somewhere(page):
    for link in re.findall(r"(?:\]\(|src=\"|srcset=\")([^)#\s\"]+)", page.read_text()):
        assert "://" in link or (page.parent / link).exists(), link


def test_each_program_that_a_command_runs_is_there(page):
    for program in re.findall(r"python3? ([\w/]+\.py)", page.read_text()):
        assert program in OUTPUTS or (launch.ROOT / program).is_file(), program


def test_each_test_and_claim_that_a_lesson_names_exists(page):
    known = set(CLAIMS)
    for file in launch.ROOT.glob("[0-9a-z]*/**/test_*.py"):
        known |= set(re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE))
        known.add(file.stem)
    for name in re.findall(r"`(test_\w+|\w+(?:_\w+){3,})`", page.read_text()):
        assert name in known or name.startswith(("tcp_", "cpu_", "listen_", "accept_")), name
