"""The three servers differ by their idea and by nothing else."""

import ast
import contextlib
import difflib
import re
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from clients.client import Client
from clients.contract.server_under_test import ServerUnderTest
from clients.system import processes
from conftest import wait_until

LINES = {"01_blocking": 75, "02_threaded": 80, "03_epoll": 125}
SOURCES = {name: processes.models()[name].read_text() for name in LINES}


def functions(source):
    """Return {name: text} of all the functions in source, methods included."""
    return {
        node.name: ast.get_source_segment(source, node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("name", LINES)
def test_a_server_is_short(name):
    assert len(SOURCES[name].splitlines()) <= LINES[name]
    for function, text in functions(SOURCES[name]).items():
        assert len(text.splitlines()) <= 25 or function == "main", function


@pytest.mark.parametrize("name", LINES)
def test_a_server_needs_the_standard_library_only(name):
    imported = re.findall(r"^(?:import|from) (\w+)", SOURCES[name], re.MULTILINE)
    assert set(imported) <= sys.stdlib_module_names


def test_from_blocking_to_threaded_is_at_most_twelve_lines():
    before, after = (SOURCES[name].splitlines() for name in ("01_blocking", "02_threaded"))
    changed = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    assert any("threading.Thread(" in line for line in changed)
    assert len(changed) <= 12


def test_all_share_the_application_the_options_and_the_sizes():
    before = functions(SOURCES["01_blocking"])
    for source in SOURCES.values():
        now = functions(source)
        assert now["greeting"] == before["greeting"]
        # 03 asks for epoll in main(), and that is all it does otherwise.
        main = re.sub(r" +if not hasattr\(select.*\n.*\n", "", now["main"])
        assert main == before["main"]
        assert re.findall(r"\.recv\(.*?\)", source) == [".recv(1024)"]
        assert "setsockopt" not in source


def test_all_log_with_the_same_calls_and_none_skips_one():
    own = ("cannot accept", "%s:%d rejected")  # how a new connection waits is the model's own
    shared = {
        name: sorted(call for call in logged(source) if not call[1].startswith(own))
        for name, source in SOURCES.items()
    }
    assert shared["01_blocking"] == shared["02_threaded"] == shared["03_epoll"]
    assert len(shared["01_blocking"]) == 5
    assert not any("logging.root" in source for source in SOURCES.values())


def logged(source):
    """Yield (level, format) of each call of logging in source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("logging."):
            text = node.args[0].value if node.args else ""  # basicConfig() takes no text
            yield ast.unparse(node.func), text


@pytest.mark.parametrize("name", LINES)
def test_a_reset_is_logged_as_a_lost_connection(serve, name):
    server = ServerUnderTest(serve(name))
    client = server.connect()
    port = client.getsockname()[1]
    client.request(b"bob")
    client.reset()
    lines = ["connected", "said b'bob'", "connection lost: [Errno 104] Connection reset by peer"]
    lines = [f"127.0.0.1:{port} {line}" for line in [*lines, "left, 3 bytes received"]]
    server.wait_until(lambda: server.log().splitlines() == lines, lines)


@pytest.mark.parametrize("name", LINES)
def test_the_log_of_a_visit_and_of_the_end(serve, name):
    server = ServerUnderTest(serve(name))
    with server.connect() as client:
        port = client.getsockname()[1]
        client.request(b"bob")
    lines = ["connected", "said b'bob'", "left, 3 bytes received"]
    lines = [f"127.0.0.1:{port} {line}" for line in lines]
    server.wait_until(lambda: server.log().splitlines() == lines, lines)
    server.process.send_signal(signal.SIGINT)
    server.process.wait(server.timeout)
    assert server.log().splitlines() == lines


FAILING_ACCEPT = """
import errno, os, runpy, select, socket, sys
order, sys.argv = sys.argv[1], sys.argv[2:]
accept = socket.socket.accept

def fail_once(self):
    ready = select.select([self], [], [], self.gettimeout())[0]
    if not ready or not os.path.exists(order):
        return accept(self)
    number = getattr(errno, open(order).read())
    os.remove(order)
    if number == errno.ECONNABORTED:
        accept(self)[0].close()
    raise OSError(number, os.strerror(number))

socket.socket.accept = fail_once
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.xdist_group(f"accept {name}")) for name in LINES],
)
def failing(request, tmp_path_factory):
    """Return a model's name, its server, and a file: accept() fails once as that says."""
    order = tmp_path_factory.mktemp("accept") / "error"
    wrapper, program = ("-c", FAILING_ACCEPT, order), processes.models()[request.param]
    with processes.running_server(program, wrapper=wrapper) as server:
        yield request.param, server, order


@pytest.mark.parametrize(
    "error", ["ECONNABORTED", "EPROTO", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EPERM"]
)
def test_after_an_error_of_accept_new_clients_are_served_while_others_talk(failing, error):
    name, server, order = failing
    served, before = threading.Event(), len(server.log())

    def talk(client):
        while not served.wait(0.2):  # an event more often than the server tries again
            client.greet(b"I stay")

    with Client(*server.address) as first, ThreadPoolExecutor() as background:
        first.greet(b"I stay")
        order.with_suffix(".new").write_text(error)
        order.with_suffix(".new").rename(order)
        if name == "01_blocking":  # it serves one client at a time
            first.close()
            served.set()
        if error == "ECONNABORTED":  # this client is aborted
            Client(*server.address).close()
        talking = background.submit(talk, first)
        try:
            with Client(*server.address, 60) as client:
                client.greet(b"and I?")
        finally:
            served.set()
        talking.result()
    assert not order.exists()
    assert ("cannot accept" in server.log()[before:]) == (error != "ECONNABORTED")


@pytest.mark.parametrize("name", ["02_threaded", "03_epoll"])
def test_when_the_limit_of_descriptors_is_raised_waiting_clients_are_served(serve, name):
    server = serve(name)
    before = server.process.rlimit(psutil.RLIMIT_NOFILE)
    with Client(*server.address) as silent, contextlib.ExitStack() as stack:
        silent.greet(b"I stay")
        server.process.rlimit(psutil.RLIMIT_NOFILE, (server.process.num_fds(), before[1]))
        clients = [stack.enter_context(Client(*server.address, 60)) for _ in range(3)]
        wait_until(lambda: "cannot accept" in server.log(), "a warning")
        server.process.rlimit(psutil.RLIMIT_NOFILE, before)
        for client in clients:
            client.greet(b"and I?")


@pytest.mark.parametrize("name", LINES)
def test_two_signals_end_it_as_one_does(serve, name):
    for _ in range(5):
        server = serve(name)
        for _ in range(2):
            server.process.send_signal(signal.SIGINT)
            time.sleep(0.005)
        assert server.process.wait(60) == 0
        assert server.log() == ""
