"""Mutants: a server with one fault, which its check of the contract has to catch.

They also prove that each check can fail.
"""

import ast
import dataclasses
import functools
import os
import pty
import signal
import socket
import subprocess
import sys
from collections import Counter

import psutil
import pytest
from rich.console import Console

from clients import break_it
from clients.contract.checks import CHECKS
from clients.contract.server_under_test import run_check
from clients.system import processes
from conftest import cli

pytestmark = pytest.mark.slow

MUTANTS = [
    mutant
    for program in processes.models().values()
    for mutant in break_it.mutants_of(program).values()
]
SERVERS = {mutant.program for mutant in MUTANTS}


def by_name(mutant):
    return f"{mutant.program.parent.name}-{mutant.name}"


@pytest.fixture
def call_main(monkeypatch):
    """Return a function that runs the command in this process, and returns its exit status."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["break_it", *map(str, words)])
        monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its handlers
        return break_it.main()

    return call


# The mutants


@pytest.mark.parametrize("mutant", MUTANTS, ids=by_name)
def test_a_mutant_fails_its_check(mutant):
    compile(mutant.source(), mutant.name, "exec")
    with mutant.written() as copy:  # on a busy machine a check may miss a fault
        assert any(fails(CHECKS[mutant.check], copy) for _ in range(3))


def fails(check, program):
    """Return True if program fails the check, with short timeouts."""
    return run_check(program, check, timeout=1.0, quiet_period=0.4).outcome == "failed"


def test_each_check_has_a_mutant_that_fails_it():
    assert set(CHECKS) == {mutant.check for mutant in MUTANTS}


def test_a_mutant_of_a_changed_server_is_an_error(tmp_path):
    mutant = MUTANTS[0]
    changed = tmp_path / "server.py"
    changed.write_text("pass\n")
    with pytest.raises(ValueError, match="0 times"):
        dataclasses.replace(mutant, program=changed).source()


# Each statement has a mutant

DEFINITIONS = (ast.FunctionDef, ast.ClassDef, ast.Try)
WITHOUT_MUTANT = {
    # Nothing works without these.
    "serve: while True:",
    "serve: conn, remote = listener.accept()",
    "serve: handle(conn, remote, greet)",
    "serve: epoll = select.epoll()",
    "serve: listener_fd, clients, retry_at = (listener.fileno(), {}, None)",
    "serve: if fd == listener_fd:",
    "serve: retry_at = accept_all(listener, epoll, clients)",
    "accept_all: conn, remote = listener.accept()",
    "accept_all: except (BlockingIOError, ConnectionAbortedError):",
    "serve: threading.Thread(target=handle, args=(conn, remote, greet)).start()",
    "Client: conn: socket.socket",
    "Client: remote: tuple[str, int]",
    "Client: bytes_received: int = 0",
    "Client: unsent: bytes = b''",
    "main: args = parser.parse_args()",
    # Every Linux has epoll.
    "main: if not hasattr(select, 'epoll'):",
    # Linux hardly ever reports an aborted connection here. A test of the models injects it.
    "serve: except ConnectionAbortedError:",
    "serve: pass",
    # It saves a call of a clock, and has no other effect.
    "greeting: if compute:",
    # epoll reports a socket as writable only when a third of its send buffer is free, so send()
    # nearly always finds room. A test in 03_epoll fills the buffer for these two statements.
    "handle: except BlockingIOError:",
    "handle: sent = 0",
    # Without it the server wakes once per second until the next connection, and does nothing.
    "serve: retry_at = None",
}


def statements(source):
    """Return the statements of a program as "function: first line", without comments."""
    lines = source.splitlines()
    scopes = [scope for scope in ast.parse(source).body if hasattr(scope, "name")]
    texts = ("\n".join(lines[scope.lineno - 1 : scope.end_lineno]) for scope in scopes)
    found = (statements_of(scope.name, text) for scope, text in zip(scopes, texts, strict=True))
    return sum(found, Counter())


@functools.cache  # a mutant changes one function, or two
def statements_of(name, source):
    return Counter(
        f"{name}: {ast.unparse(node).splitlines()[0]}"
        for node in ast.walk(ast.parse(source).body[0])
        if isinstance(node, (ast.stmt, ast.excepthandler)) and not is_plumbing(node)
    )


def is_plumbing(node):
    """Return True for what defines, documents, logs or parses options."""
    text = ast.unparse(node)
    return isinstance(node, DEFINITIONS) or text.startswith(("'", '"', "logging.", "parser."))


def test_every_statement_has_a_mutant_or_a_reason():
    # A statement that the servers share needs a mutant in one of them.
    everything, mutated = set(), set()
    for program in SERVERS:
        everything |= set(statements(program.read_text()))
    for mutant in MUTANTS:
        mutated |= set(statements(mutant.program.read_text()) - statements(mutant.source()))
    assert everything - mutated == WITHOUT_MUTANT


# The command


@pytest.mark.parametrize("name", sorted(program.parent.name for program in SERVERS))
def test_it_lists_every_mutant_of_a_server(call_main, capsys, name):
    assert call_main(name) == 0
    output = capsys.readouterr().out
    for mutant in break_it.mutants_of(processes.find_server(name)).values():
        assert mutant.name in output
        assert mutant.symptom.split()[0] in output


def test_it_shows_the_change_and_the_check_that_fails(call_main, capsys):
    assert call_main("02_threaded", "echo-after-reply") == 0
    output = capsys.readouterr().out
    assert "-                conn.sendall(greet(chunk))" in output
    assert "+                conn.sendall(greet(chunk) + chunk)" in output
    assert "The client sends bob" in output
    assert "each message is greeted" in output
    assert "received b'bobHello'" in output


def test_a_mutant_that_passes_its_check_is_no_success(call_main, capsys, tmp_path):
    program = tmp_path / "server.py"
    program.write_text(processes.find_server("01_blocking").read_text())
    program.with_name("faults.toml").write_text(
        'harmless = {symptom="", teaches="", check="sigterm_ends_it", changes=[["1024","1024"]]}'
    )
    assert call_main(program, "harmless") == 1
    assert "not caught" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ('symptom="", teaches="", check="sigterm_ends_it"', "[mine] needs the keys symptom,"),
        ('symptom="", teaches="", check="", changes=[], more=1', "[mine] needs the keys symptom,"),
        ('symptom="", teaches="", check="it_flies", changes=[]', "an unknown check, it_flies"),
        ('symptom="', "faults.toml: Unterminated string"),
    ],
)
def test_a_wrong_entry_of_the_reader_gets_one_line(call_main, tmp_path, entry, error):
    program = tmp_path / "server.py"
    program.touch()
    program.with_name("faults.toml").write_text(f"mine = {{{entry}}}")
    message = call_main(program, "mine")
    assert error in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["04_none"], "no server 04_none"),
        (["03_epoll", "no-such"], "no mutant no-such"),
        ([break_it.__file__], "no faults.toml"),
    ],
)
def test_an_error_of_the_user_gets_one_line(call_main, capsys, words, answer):
    message = call_main(*words)
    assert answer in message
    assert len(message.splitlines()) == 1
    assert capsys.readouterr() == ("", "")


def test_an_error_is_printed_on_standard_error_with_exit_status_1():
    done = cli("clients.break_it", "04_none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no server 04_none")


def test_on_a_terminal_the_mutant_runs_until_ctrl_c_and_leaves_nothing(tmp_path):
    ours, its = pty.openpty()
    with open(ours, "rb", buffering=0), open(its, "rb", buffering=0) as terminal:
        process = psutil.Popen(
            processes.module_command("clients.break_it", "02_threaded", "echo-after-reply"),
            stdin=terminal,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        )
        with process.stdout:
            lines = iter(process.stdout.readline, "")
            port = next(line.split()[-1] for line in lines if "client.py --port" in line)
            next(line for line in lines if "Ctrl-C" in line)
            (server,) = process.children()
            with socket.create_connection(("127.0.0.1", int(port)), 20) as sock:
                sock.sendall(b"bob")
                assert sock.recv(100) == b"Hello, bobbob"
            process.send_signal(signal.SIGINT)
            output = process.stdout.read()
        assert process.wait(20) == 0
    assert "said b'bob'" in output
    assert not server.is_running()
    assert not list(tmp_path.iterdir())


def test_ctrl_c_right_after_its_line_still_shows_the_log():
    printed = []

    class Interrupted(Console):
        def print(self, text, **style):
            printed.append(text)
            if "Ctrl-C ends it" in text:
                raise KeyboardInterrupt

    mutant = break_it.mutants_of(processes.find_server("02_threaded"))["echo-after-reply"]
    with mutant.written() as copy, pytest.raises(KeyboardInterrupt):
        break_it.keep_running(Interrupted(), mutant, copy)
    assert "The end of its log" in printed[-1]
