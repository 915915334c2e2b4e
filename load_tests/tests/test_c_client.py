"""The benchmark checked: a client in C and another clock see the same ratios of CPU time.

SERVERS="03_epoll 02_threaded" CONNECTIONS=10,100 GREETINGS=100000 ROUNDS=5 \\
    .venv/bin/python -m pytest load_tests/tests/test_c_client.py -s

bench.py has a generator in Python and reads the clock of clock_getcpuclockid(3). Here
bench_client.c, compiled with cc, sends the requests, each server is started again for each round,
and its CPU time is what /proc/PID/stat counts (psutil).
"""

import contextlib
import os
import shutil
import statistics
import subprocess
from pathlib import Path

import pytest

from clients.system import processes
from clients.system.processes import ROOT, running_server
from load_tests import bench
from load_tests.harness.files import Screen

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler here (cc)"),
]
SOURCE = Path(__file__).with_name("bench_client.c")
SERVERS = os.environ.get("SERVERS", "03_epoll 02_threaded").split()
CONNECTIONS = [int(one) for one in os.environ.get("CONNECTIONS", "3").split(",")]
GREETINGS, ROUNDS = int(os.environ.get("GREETINGS", "10000")), int(os.environ.get("ROUNDS", "1"))


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    program = tmp_path_factory.mktemp("client") / "bench_client"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", program, SOURCE], check=True)
    return program


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


def cost_in_c(client, spec, connections):
    """Start and warm a server, let the client greet it; return its CPU seconds per greeting."""
    cores = sorted(os.sched_getaffinity(0))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with bench.pinned_server(spec, cores[:1]) as server:
        line = [str(client), *map(str, server.address), str(connections), str(GREETINGS)]
        with processes.spawn(line, **pipes, text=True) as process:
            process.cpu_affinity(cores[-1:])
            process.stdout.readline()  # all are connected
            before = processes.sum_over_tree(server.process, cpu_seconds)
            with contextlib.suppress(BrokenPipeError):  # no buffer, which would complain later
                os.write(process.stdin.fileno(), b"\n")
            assert process.stdout.readline(), process.stderr.read()
            return (processes.sum_over_tree(server.process, cpu_seconds) - before) / GREETINGS


def cpu_seconds(process):
    """Return the CPU time of a process and of its children that have ended."""
    return sum(process.cpu_times()[:4])  # in hundredths of a second (proc(5), stat)


@pytest.mark.parametrize("connections", CONNECTIONS)
def test_both_ways_see_the_same_ratios(client, connections):
    specs, costs = bench.options(SERVERS).specs, {}
    for _ in range(ROUNDS):
        for spec in specs:
            costs.setdefault(spec.name, []).append(cost_in_c(client, spec, connections))
    # A round begins with all requests at once; with thousands it must be long to hide that.
    seconds = max(0.1, connections / 2500)
    options = bench.options([*SERVERS, f"--rounds={3 * ROUNDS}", f"--seconds={seconds}"])
    first, *others = bench.measure(options, connections, Screen())
    base = statistics.median(costs[first.server]), bench.median(first, "cpu")
    for one in others:
        in_c = statistics.median(costs[one.server]) / base[0]
        by_bench = bench.median(one, "cpu") / base[1]
        print(
            f"\n{connections} connections, {one.server}: {in_c:.2f} in C, {by_bench:.2f} by bench"
        )
        assert 1 / 2 < in_c / by_bench < 2  # one of ten clock ticks is chance
