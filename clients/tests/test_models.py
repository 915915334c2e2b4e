"""The three servers differ by their idea and by nothing else."""

import ast
import difflib
import re
import signal
import sys

import pytest

from clients.contract.server_under_test import ServerUnderTest
from clients.system import processes

LINES = {"01_blocking": 80, "02_threaded": 85, "03_epoll": 125}
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
    assert len(shared["01_blocking"]) == 6
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
    assert server.log().splitlines() == [*lines, "stopped"]
