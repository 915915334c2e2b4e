"""The check of the benchmark: the client in C compares every answer; the table has both ways."""

import json
import subprocess

import pytest

from clients.system.processes import ROOT, module_command, running_server
from load_tests import bench_check
from load_tests.tests.compiler import with_a_compiler

pytestmark = [pytest.mark.slow, with_a_compiler]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    return bench_check.compile_client(tmp_path_factory.mktemp("client"))


def greet(client, server, *numbers):
    line = [client, *server.address, *numbers]
    return subprocess.run(
        list(map(str, line)), input="\n\n", capture_output=True, text=True, timeout=60
    )


def test_it_sends_requests_until_all_are_answered(client, serve):
    done = greet(client, serve("03_epoll", "--backlog", 50), 20, 500)
    assert done.returncode == 0, done.stderr
    connected, seconds = done.stdout.split()
    assert connected == "connected"
    assert float(seconds) > 0


def test_a_wrong_answer_ends_it(client, tmp_path):
    program = tmp_path / "server.py"
    text = (ROOT / "03_epoll" / "server.py").read_text()
    program.write_text(text.replace('return b"Hello, "', 'return b"Hullo, "'))
    with running_server(program, "--quiet") as server:
        done = greet(client, server, 2, 10)
    assert done.returncode == 1
    assert "wrong answer: Hullo" in done.stderr


def test_both_ways_are_measured(tmp_path):
    file = tmp_path / "found.json"
    options = ["--connections", 3, "--rounds", 1, "--greetings", 5_000, "--json", file]
    line = module_command("load_tests.bench_check", "03_epoll", "02_threaded", *options)
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "bench_client.c" in done.stdout
    [found] = json.loads(file.read_text()).values()
    assert set(found) == {"03_epoll", "02_threaded"}
    assert all(cost > 0 for both in found.values() for cost in both)
