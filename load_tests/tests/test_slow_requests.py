"""Slow requests: only messages that begin with "slow" are slow; and servers are warmed."""

import pytest

from clients.client import Client
from clients.system import processes
from conftest import wait_until
from load_tests.harness.monitor import tree_cpu_seconds
from load_tests.harness.runs import SLOW_REQUESTS, VISITORS, warm

pytestmark = pytest.mark.slow

ALTERNATIVES = processes.ROOT / "load_tests" / "alternatives"
PROGRAMS = [
    *processes.models().values(),
    *(ALTERNATIVES / name for name in ("asyncio_streams.py", "loop_with_pool.py")),
]


@pytest.mark.parametrize("program", PROGRAMS, ids=processes.server_name)
def test_only_slow_requests_are_slow(program):
    options, wrapper = ("--quiet", "--compute", 0.08), (SLOW_REQUESTS, 0.005)
    with processes.running_server(program, *options, wrapper=wrapper) as server:
        with Client(*server.address) as client:
            before = tree_cpu_seconds(server.process)
            assert client.greet(b"bob") == b"Hello, bob"
            between = tree_cpu_seconds(server.process)
            assert client.greet(b"slow bob") == b"Hello, slow bob"
            after = tree_cpu_seconds(server.process)
    assert between - before < 0.04
    assert after - between > 0.07


def test_the_switch_interval_of_the_server_can_be_set(tmp_path):
    program = tmp_path / "server.py"
    program.write_text(
        "import sys\ndef greeting(): ...\ndef main(): sys.exit(f'{sys.getswitchinterval()} s')"
    )
    with (
        pytest.raises(processes.LaunchError, match=r"0\.25 s"),
        processes.running_server(program, wrapper=(SLOW_REQUESTS, 0.25)),
    ):
        pass


def test_a_program_without_a_greeting_is_refused(tmp_path):
    program = tmp_path / "server.py"
    program.write_text("print('I am something else')")
    with (
        pytest.raises(processes.LaunchError, match="--slow-requests needs both"),
        processes.running_server(program, wrapper=(SLOW_REQUESTS, 0.005)),
    ):
        pass


def test_a_server_is_warmed_by_visitors_that_are_greeted_and_leave(serve):
    server = serve("03_epoll")
    warm(server.address)
    wait_until(lambda: server.log().count("left, 4 bytes received") == VISITORS, server.log)


def test_the_cpu_time_of_all_processes_of_a_server_counts():
    program = ALTERNATIVES / "prefork.py"
    with processes.running_server(program, "--quiet", "--processes", 2, "--compute", 0.1) as server:
        assert len(processes.process_tree(server.process)) == 3
        before = tree_cpu_seconds(server.process)
        with Client(*server.address) as client:
            client.greet(b"bob")
        assert tree_cpu_seconds(server.process) - before > 0.09
