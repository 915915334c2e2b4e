"""The benchmark: its numbers agree with the server's own, and a failing server gives none."""

import json
import re
import signal
import statistics
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from clients.system.processes import module_command, running_server
from conftest import cli, wait_until
from load_tests import bench
from load_tests.bench import Measured, Round
from load_tests.harness import generator

pytestmark = pytest.mark.slow

# A server that answers the chunk of number count by the code {answer}.
SERVER = """
import argparse, os, socket, sys, threading
parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
listener = socket.create_server(("127.0.0.1", parser.parse_known_args()[0].port))
print("listening on 127.0.0.1:%d" % listener.getsockname()[1], flush=True)
count, last = 0, b""
def handle(conn):
    global count, last
    while chunk := conn.recv(1024):
        count += 1
        {answer}
        last = chunk
while True:
    threading.Thread(target=handle, args=listener.accept()[:1], daemon=True).start()
"""
WRONG = {
    "other words": ('conn.sendall((b"Hallo, " if count > 25 else b"Hello, ") + chunk)', "Hallo"),
    "too much": ('conn.sendall(b"Hello, " + chunk + b"!" * (count > 25))', "!"),
    "another client's words": (
        'conn.sendall(b"Hello, " + (chunk if count < 26 else last))',
        "answered",
    ),
    "half an answer": (
        'conn.sendall((b"Hello, " + chunk)[:20 if count > 25 else None]);'
        "count > 25 and conn.shutdown(socket.SHUT_RDWR)",
        "closed the connection after",
    ),
    "death": (
        'conn.sendall(b"Hello, " + chunk);'
        'count > 25 and (print("I am so tired", file=sys.stderr, flush=True), os._exit(3))',
        "closed|reset|Broken pipe",
    ),
}


def program(folder, answer):
    path = folder / "mine.py"
    path.write_text(SERVER.replace("{answer}", answer))
    return path


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    """A short run of two servers; return what it printed and what it measured."""
    file = tmp_path_factory.mktemp("paired") / "rounds.json"
    options = ["--connections", "2,4", "--rounds", 2, "--seconds", 0.05, "--json", file]
    done = cli(
        "load_tests.bench", "03_epoll", "02_threaded --compute 0.002", *options, "--idle", "0,100"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads(file.read_text(), object_hook=lambda one: SimpleNamespace(**one))
    assert (written.schema, written.load) == (3, "greet")
    return done.stdout, [written.measured[:2], written.measured[2:]]


@pytest.mark.xdist_group("paired")
def test_every_round_of_two_paired_servers_is_there_and_adds_up(paired):
    for connections, servers in zip((2, 4), paired[1], strict=True):
        names = [one.server for one in servers]
        assert names == ["03_epoll", "02_threaded --compute 0.002 +100 idle"]
        for one in servers:
            assert one.connections == connections
            assert len(one.rounds) == 2
            for done in one.rounds:
                assert done.answered >= connections
                assert done.throughput == pytest.approx(done.answered / done.seconds)
                assert 0 < done.p50 <= done.p99 <= done.max <= done.seconds


@pytest.mark.xdist_group("paired")
def test_the_cpu_time_is_that_of_all_the_threads_of_the_server(paired):
    for servers in paired[1]:
        light, working = (bench.median(one, "cpu") for one in servers)
        assert working >= 0.002 > light > 0


@pytest.mark.xdist_group("paired")
def test_the_printed_ratio_is_the_median_of_the_rounds_and_nothing_is_cut_off(paired):
    text, pairs = paired
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for servers, part in zip(pairs, text.split("relative to 03_epoll")[1:], strict=True):
        first, second = ([done.cpu for done in one.rounds] for one in servers)
        ratio = statistics.median(b / a for a, b in zip(first, second, strict=True))
        assert re.search(r"\d+\.\d\d(?= \(\d)", part)[0] == f"{ratio:.2f}"


@pytest.mark.xdist_group("paired")
def test_idle_connections_are_held_and_their_cost_is_measured(paired):
    text, [[without, with_idle], _] = paired
    assert (without.idle, with_idle.idle) == (0, 100)
    assert without.cost_of_idle is None
    assert 0 < with_idle.cost_of_idle.resident < 100
    assert "100 idle connections" in text


@pytest.mark.parametrize(
    ("busy", "generator_busy", "mark"),
    [(0.95, 0.99, ""), (0.5, 0.95, "*"), (0.5, 0.5, "~"), (0.95, 0.2, "")],
)
def test_the_mark_says_which_core_was_busy(busy, generator_busy, mark, monkeypatch):
    monkeypatch.setattr(bench, "usable_cores", lambda: 2)
    one = Round(10, 1, 10, 0.1, 0.1, 0.1, 0.001, busy, generator_busy)
    assert bench.mark(Measured(10, "03_epoll", 0, rounds=[one])) == mark
    monkeypatch.setattr(bench, "usable_cores", lambda: 0.5)  # both share it: nothing is known
    assert bench.mark(Measured(10, "03_epoll", 0, rounds=[one])) == ""
    assert all(text.startswith(name) for name, text in bench.MARKS.items())


def test_servers_alternate(monkeypatch):
    order = []

    def target(spec, *_):
        return SimpleNamespace(
            name=spec.name,
            server=SimpleNamespace(process=psutil.Process()),
            share=lambda *_: None,
            connect_idle=lambda *_: None,
            round=lambda *_: order.append(spec.name),
        )

    monkeypatch.setattr(bench, "target", target)
    args = bench.options(["01_blocking", "03_epoll", "--rounds", "3"])
    bench.measure(args, 10, bench.Screen())
    assert order[2:] == ["01_blocking", "03_epoll"] * 3


def test_the_server_logs_as_many_greetings_as_were_counted(serve):
    server = serve("03_epoll", "--backlog", 50)
    clients = generator.Generator(server.address, 0)
    clients.hold(3)
    clients.hold(2, idle=True)
    done, visits = (clients.round(3, load, 0.1) for load in ("greet", "visit"))
    greetings, came = len(done[0]), len(visits[0])
    assert min(greetings, came) >= 3
    assert server.log().count(" said ") == 5 + greetings + came
    assert server.log().count(" connected") == 5 + came
    # The last one is logged after its close.
    wait_until(lambda: server.log().count(" left") == came, server.log)
    for latencies, seconds, _ in (done, visits):  # one after the other, on three connections
        assert 0 < sum(latencies) / 1e9 <= 3 * seconds
    for sock in clients.sockets:
        sock.close()


@pytest.mark.parametrize("load", ["greet", "visit"])
def test_a_round_is_bounded_in_requests_too(load, serve, monkeypatch):
    monkeypatch.setattr(generator, "MOST", 10)
    clients = generator.Generator(serve("03_epoll").address, 0)
    clients.hold(2)
    latencies, _, _ = clients.round(2, load, 3600)
    assert 10 <= len(latencies) <= 14


@pytest.mark.parametrize("name", WRONG)
def test_a_server_that_fails_is_found_out(name, tmp_path):
    answer, words = WRONG[name]
    with running_server(program(tmp_path, answer)) as server:
        clients = generator.Generator(server.address, 0)
        clients.hold(2)
        with pytest.raises((generator.WrongAnswer, OSError), match=words):
            clients.round(2, "greet", 60)


@pytest.mark.parametrize(
    ("name", "words"),
    [("other words", "Hallo"), ("death", "status 3. The end of its log: I am so tired")],
)
def test_a_server_that_fails_ends_the_run(name, words, tmp_path):
    mine = program(tmp_path, WRONG[name][0])
    done = cli("load_tests.bench", mine, "--connections", 2, "--rounds", 1)
    assert done.returncode == 1
    assert done.stderr.startswith("mine")
    assert words in done.stderr
    most_lines = 2 if name == "death" else 1  # both of its threads may write them
    assert done.stderr.count("\n") <= most_lines
    assert "Traceback" not in done.stderr


def test_an_answer_in_two_parts_is_an_answer(tmp_path):
    parts = 'conn.sendall(b"Hel"); __import__("time").sleep(0.001); conn.sendall(b"lo, " + chunk)'
    with running_server(program(tmp_path, parts)) as server:
        clients = generator.Generator(server.address, 0)
        clients.hold(2)
        for load in ("greet", "visit"):
            assert len(clients.round(2, load, 0.05)[0]) >= 2


def test_a_server_that_serves_one_at_a_time_is_not_called_slow(serve, monkeypatch):
    monkeypatch.setattr(generator, "TIMEOUT", 0.3)
    clients = generator.Generator(serve("01_blocking").address, 0)
    with pytest.raises(generator.WrongAnswer, match="fewer clients at a time"):
        clients.hold(2)


def children(process):
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_no_process(number):
    options = ["03_epoll", "02_threaded", "--connections", 10, "--rounds", 1000]
    process = subprocess.Popen(
        module_command("load_tests.bench", *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        family = wait_until(lambda: len(found := children(process)) >= 4 and found)
        process.send_signal(number)
        _, words = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert words == "interrupted\n"
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no_such_server"], "no server no_such_server"),
        (["03_epoll 'half"], "No closing quotation"),
        ([""], "no server"),
        (["03_epoll", "--connections", "0"], "--connections"),
        (["03_epoll", "--connections", "many"], "whole numbers from 1"),
        (["03_epoll", "--rounds", "0"], "--rounds"),
        (["03_epoll", "--seconds", "nan"], "--seconds"),
        (["03_epoll", "--idle", "1,2"], "--idle"),
        (["03_epoll", "--load", "crowd"], "--load"),
    ],
)
def test_bad_options_get_a_clear_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        bench.options(arguments)
    assert end.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_too_few_descriptors_are_said_at_once():
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256));"
    code = f"{limit} del sys.argv[0]; runpy.run_module('load_tests.bench', run_name='__main__')"
    line = [sys.executable, "-c", code, "x", "03_epoll", "--connections", "1000"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "needs 1100 descriptors and may have 256" in done.stderr
