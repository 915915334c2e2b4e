"""The check of the benchmark: the client in C compares every answer; the table has both ways."""

import json
import re
import subprocess

import pytest

from clients.system.processes import ROOT, running_server
from conftest import cli
from load_tests import bench
from load_tests.harness import c_client
from load_tests.tests.compiler import with_a_compiler

pytestmark = [pytest.mark.slow, with_a_compiler]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    return c_client.compile_client(tmp_path_factory.mktemp("client"))


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
    options = ["--connections", 3, "--rounds", 1, "--seconds", 0.1, "--check", 5_000]
    done = cli("load_tests.bench", "03_epoll", "02_threaded", *options, "--json", file)
    assert done.returncode == 0, done.stderr
    measured = json.loads(file.read_text())["measured"]
    for one in measured:
        assert len(one["cpu_in_c"]) == len(one["rounds"]) == 1
        assert one["cpu_in_c"][0] > 0
    [[first], [second]] = (one["cpu_in_c"] for one in measured)
    assert re.search(rf"02_threaded.* {second / first:.2f}$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("more", [["--idle", "0,5"], ["--load", "visit"]])
def test_what_the_client_in_c_does_not_do_is_refused(more, capsys):
    with pytest.raises(SystemExit) as end:
        bench.options(["03_epoll", "03_epoll", "--check", "5000", *more])
    assert end.value.code == 2
    assert "--check is for greetings without idle" in capsys.readouterr().err
