"""Several machines: Locust's master and workers, each in a network of its own, and the server.

The networks are namespaces that this test makes and removes; nothing leaves them. Three of them,
in a row: near (master and a worker) - middle (the server, which also routes) - far (a worker).
"""

import contextlib
import json
import os
import subprocess
import sys

import pytest

from clients.system import processes
from load_tests.harness import stats
from load_tests.harness.samples import Sample

pytestmark = pytest.mark.slow

LOCUSTFILE = processes.ROOT / "load_tests" / "locustfile.py"
SERVER, MASTER = "10.77.1.1", "10.77.1.2"
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
                pytest.skip(f"no network namespaces here (it needs root): {done.stderr.strip()}")
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        done = ip("netns", "exec", names["middle"], "sh", "-c", forward)
        if done.returncode:
            pytest.skip(f"the namespace may not route: {done.stderr.strip()}")
        yield names
    except FileNotFoundError:
        pytest.skip("there is no ip command here (apt-get install iproute2)")
    finally:
        with contextlib.suppress(FileNotFoundError):
            for name in names.values():
                ip("netns", "delete", name)


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True)


def test_master_workers_and_server_on_three_machines(networks, tmp_path):
    program = processes.models()["03_epoll"]
    script = tmp_path / "server"
    inside = f"ip netns exec {networks['middle']} {sys.executable} {program}"
    script.write_text(f'#!/bin/sh\nexec {inside} "$@"\n')
    script.chmod(0o755)
    sample_log = tmp_path / "samples.json"
    with processes.running_server(script, "--host", SERVER, "--quiet") as server:
        host = ["--host", f"tcp://{SERVER}:{server.address[1]}"]
        master = ["--master", "--master-bind-host", MASTER, "--expect-workers", 2, "--headless"]
        load = ["-u", 10, "-r", 10, "--seconds", 3, "--sample-log", sample_log, *host]
        worker = ["--worker", "--master-host", MASTER]
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(locust(networks["near"], *master, *load))
            stack.enter_context(locust(networks["near"], *worker))
            stack.enter_context(locust(networks["far"], *worker))
            output, _ = first.communicate(timeout=120)
    assert sample_log.is_file(), output
    content = json.loads(sample_log.read_text())
    samples = [Sample(*one) for one in content["samples"]]
    found = stats.outcomes(samples)
    assert found.finished > 0
    assert found.failed == 0
    assert len({sample.session.split("/")[0] for sample in samples}) == 2
    assert len(content["generators"]) == 2


@contextlib.contextmanager
def locust(network, *options):
    """Run Locust in a network namespace, and end it."""
    line = ["ip", "netns", "exec", network, sys.executable, "-m", "locust", "-f", LOCUSTFILE]
    process = subprocess.Popen(
        [*map(str, line), *map(str, options), "--exit-code-on-error", "0", "ClosedLoopUser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)
