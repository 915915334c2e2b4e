"""Several machines as one load: a comparison and two workers, each in a network of its own.

The networks are namespaces that this test makes and removes; nothing leaves them. Three of them,
in a row: near (a worker) - middle (the comparison and the server; it also routes) - far (a worker).
"""

import contextlib
import csv
import gzip
import os
import signal
import subprocess
from pathlib import Path

import pytest

from clients.system import processes
from clients.system.procfs import parse_tcp_line
from conftest import skip_without, wait_until
from load_tests.tests.made import read

pytestmark = pytest.mark.slow

MIDDLE = "10.77.1.1"
SETUP = """
netns add {near}
netns add {middle}
netns add {far}
link add veth-near netns {near} type veth peer name veth-server1 netns {middle}
link add veth-far netns {far} type veth peer name veth-server2 netns {middle}
-n {near} addr add 10.77.1.2/24 dev veth-near
-n {middle} addr add 10.77.1.1/24 dev veth-server1
-n {middle} addr add 10.77.2.1/24 dev veth-server2
-n {far} addr add 10.77.2.2/24 dev veth-far
-n {near} link set veth-near up
-n {near} link set lo up
-n {middle} link set veth-server1 up
-n {middle} link set veth-server2 up
-n {middle} link set lo up
-n {far} link set veth-far up
-n {far} link set lo up
-n {near} route add default via 10.77.1.1
-n {far} route add default via 10.77.2.1
"""


@pytest.fixture
def networks():
    """Yield the names of the three namespaces; skip the test where they cannot be had."""
    names = {name: f"{name}{os.getpid()}" for name in ("near", "middle", "far")}
    try:
        for line in SETUP.strip().splitlines():
            done = ip(*line.format(**names).split())
            if done.returncode:
                skip_without("network namespaces", done.stderr)
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        done = ip("netns", "exec", names["middle"], "sh", "-c", forward)
        if done.returncode:
            skip_without("network namespaces", done.stderr)
        yield names
    except FileNotFoundError:
        pytest.skip("there is no ip command here (apt-get install iproute2)")
    finally:
        with contextlib.suppress(FileNotFoundError):
            for name in names.values():
                ip("netns", "delete", name)


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True)


def test_a_comparison_whose_load_two_workers_make(networks, tmp_path):
    """One worker leaves in the first run, by Ctrl-C; Ctrl-C ends the comparison in the second."""
    options = ["--users", 20, "--seconds", 3, "--repeat", 9, "--no-pictures", "--out", tmp_path]
    options += ["--workers", 2, "--master-bind-host", MIDDLE, "03_epoll"]
    with contextlib.ExitStack() as stack:
        near = stack.enter_context(compare(networks["near"], "--join", MIDDLE))
        far = stack.enter_context(compare(networks["far"], "--join", MIDDLE))
        assert next(far.stdout).startswith("Makes load for the comparison")
        comparison = stack.enter_context(compare(networks["middle"], *options))
        # Of its ten users some are at their second visitor: it has reported some of the first ones.
        wait_until(lambda: len(sockets_of(far)) >= 16)
        assert {one.local[0] for one in sockets_of(comparison, "LISTEN")} == {MIDDLE}
        assert not sockets_of(far, "LISTEN")
        far.send_signal(signal.SIGINT)
        assert [next(near.stdout) for _ in range(2)][1] == "A run has ended.\n"
        assert [next(comparison.stdout) for _ in range(2)] == ["03_epoll, 20 users\n"] * 2
        wait_until(lambda: sockets_of(near, "ESTABLISHED", ()))  # to the master of the second run
        comparison.send_signal(signal.SIGINT)
        said, errors = comparison.stdout.read(), comparison.stderr.read()
        near.send_signal(signal.SIGINT)
        assert (comparison.wait(), near.wait(), far.wait()) == (0, 1, 1), errors
        assert near.stderr.read() == "interrupted\n"
        for name in networks.values():
            wait_until(lambda name=name: ip("netns", "pids", name).stdout == "")
    found = read(tmp_path / "results.json")
    assert found.interrupted
    [run] = found.runs
    assert run.outcomes.failed == 0
    assert "lost 1 worker" in run.generator.limited
    [left] = run.generator.workers_left
    assert left in " ".join(said.split())
    with gzip.open(tmp_path / "samples.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["request"] == "session" for row in rows) == run.outcomes.visitors
    by_worker = {}
    for row in rows:
        assert float(row["began"]) >= 0
        by_worker.setdefault(row["session"].partition("/")[0], []).append(row)
    (left_at, gone), (end, others) = sorted(
        (max(float(row["ended"]) for row in its), its) for its in by_worker.values()
    )
    assert left_at < 3 <= end
    for its in (gone, others):
        assert len({row["session"] for row in its}) >= 10
    assert {row["outcome"] for row in gone} == {"answered", "unanswered"}


def sockets_of(process, state="", masters=(5557,)):
    """Return the TcpSockets in a process's network, but those to Locust's masters."""
    lines = Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]
    found = map(parse_tcp_line, lines)
    return [one for one in found if state in one.state and one.remote[1] not in masters]


@contextlib.contextmanager
def compare(network, *options):
    """Run a comparison in a network namespace, and end it."""
    line = ["ip", "netns", "exec", network, *processes.module_command("load_tests.compare")]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*line, *map(str, options)], cwd=processes.ROOT, **streams) as process:
        try:
            yield process
        finally:
            process.kill()
