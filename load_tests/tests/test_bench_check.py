"""The check of the benchmark: the asker in C compares every answer, and the table has both ways."""

import json
import subprocess

import pytest

from clients.system.processes import ROOT, running_server, tool
from load_tests import bench_check
from load_tests.tests.compiler import with_a_compiler

pytestmark = with_a_compiler


@pytest.fixture(scope="module")
def asker(tmp_path_factory):
    return bench_check.compiled(tmp_path_factory.mktemp("asker"))


def ask(asker, server, *numbers):
    line = [asker, *server.address, *numbers]
    return subprocess.run(
        list(map(str, line)), input="\n\n", capture_output=True, text=True, timeout=60
    )


def test_it_asks_until_all_is_answered(asker, serve):
    done = ask(asker, serve("03_epoll", "--backlog", 50), 20, 500)
    assert done.returncode == 0, done.stderr
    connected, seconds = done.stdout.split()
    assert connected == "connected"
    assert float(seconds) > 0


def test_a_wrong_answer_ends_it(asker, tmp_path):
    program = tmp_path / "server.py"
    text = (ROOT / "03_epoll" / "server.py").read_text()
    program.write_text(text.replace('return b"Hello, "', 'return b"Hullo, "'))
    with running_server(program, "--quiet") as server:
        done = ask(asker, server, 2, 10)
    assert done.returncode == 1
    assert "wrong answer: Hullo" in done.stderr


def test_both_ways_are_measured(tmp_path):
    file = tmp_path / "found.json"
    options = ["--connections", 3, "--rounds", 1, "--greetings", 20_000, "--json", file]
    line = tool("load_tests.bench_check", "03_epoll", "02_threaded", *options)
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "bench_client.c" in done.stdout
    [found] = json.loads(file.read_text()).values()
    assert set(found) == {"03_epoll", "02_threaded"}
    assert all(theirs > 0 for _, theirs in found.values())
