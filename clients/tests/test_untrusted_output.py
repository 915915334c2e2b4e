"""Untrusted output reaches the terminal as text: no escapes, no bidirectional marks, no markup.

A terminal without input, or with only ASCII, ends no program with a traceback.
"""

import os
import signal
import subprocess
import sys

import pytest

from clients.client import Client
from clients.console.printable import printable
from clients.system.processes import ROOT, models, run_captured, running_server, spawn
from clients.tests.in_the_classroom import play, screen, shows
from conftest import cli

pytestmark = pytest.mark.slow

TURNED = "\N{RIGHT-TO-LEFT OVERRIDE}"
HOSTILE = f'''"""A [red]hostile[/red] server{TURNED}, with an escape: \x1b[2J."""
import socket
import sys
server = socket.create_server(("127.0.0.1", 0))
print("listening on %s:%d" % server.getsockname(), flush=True)
print("[/red] \\x1b]0;title\\x07 \\N{{RIGHT-TO-LEFT OVERRIDE}}", file=sys.stderr, flush=True)
while True:
    client, _ = server.accept()
    received = client.recv(1024)
    if received == b"die":
        raise SystemExit("[/red] \\x1b[2J")
    client.sendall(b"[/red]\\x1b[2J" + received)  # \x1b[31m
    client.close()
'''


@pytest.fixture
def hostile(tmp_path):
    program = tmp_path / "x[red]y" / "server.py"
    program.parent.mkdir()
    program.write_text(HOSTILE)
    return program


WIDE = os.environ | {"COLUMNS": "400"}  # no long path is broken


def is_clean(text):
    """Return True if text contains printable characters and line ends only."""
    return all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.parametrize(
    "mark", ["\x1b[2J", "\x07", "\x9b", "\r", "\n", TURNED, "\u2066", "\u200b"]
)
def test_what_cannot_be_printed_is_a_dot(mark):
    assert is_clean(printable(mark))
    assert printable(f"你[red]é{mark[0]}b") == "你[red]é·b"


def test_the_contract_prints_it_as_it_is(hostile):
    done = cli("clients.contract", hostile, "each_message_is_greeted", "ctrl_c_ends_it", env=WIDE)
    assert done.returncode == 1
    out = done.stdout
    assert is_clean(out)
    assert "x[red]y/server.py" in out
    assert ": 0 passed, 2 failed" in out
    assert r"received b'[/red]\x1b[2J'" in out


def test_learning_by_breaking_prints_it_as_it_is(hostile):
    hostile.with_name("faults.toml").write_text(
        '["[red]name"]\nsymptom="[/red] \\u001b[2J"\nteaches="[/red]\\u202e"\n'
        'check="each_message_is_greeted"\nchanges=[["1024", "1023"]]\n'
    )
    for words in ([], ["[red]name"]):
        done = cli("clients.break_it", hostile, *words, env=WIDE)
        out = done.stdout
        assert done.returncode == 0, done.stderr
        assert is_clean(out)
        assert "[/red] ·[2J" in out


def test_a_crowd_prints_an_answer_as_it_is(hostile):
    with running_server(hostile) as server:
        port = server.address[1]
        done = cli("clients.crowd", "--port", port, "--clients", 1, "--greetings", 1, env=WIDE)
    out = done.stdout
    assert (done.returncode, done.stderr) == (1, "")
    assert is_clean(out)
    assert r"replied b'[/red]\x1b[2J" in out


def test_the_classroom_shows_it_as_it_is(hostile):
    first = []

    def send_die(app):
        first.extend(screen(app))
        with Client(*app.monitor.server.address) as client:
            client.socket.sendall(b"die")
        return True

    last = play(hostile, shows("[31m"), send_die, shows("has ended"), size=(140, 60))
    shown = "\n".join([*first, *last])
    assert is_clean(shown)
    for text in ("x[red]y/server.py", "A [red]hostile[/red] server·", "·[31m", "[/red] ·[2J"):
        assert text in shown


@pytest.mark.parametrize(
    "words",
    [
        ["clients.contract", "01_blocking", "ctrl_c_ends_it", "each_message_is_greeted"],
        ["clients.break_it", "01_blocking", "truncated-reply"],
        ["clients.break_it", "03_epoll"],
    ],
    ids=lambda words: words[0],
)
def test_a_terminal_that_has_ascii_only_and_a_script_without_input_that_ignores_ctrl_c(words):
    def ignore_ctrl_c_and_close_input():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.close(0)

    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = cli(*words, env=env, preexec_fn=ignore_ctrl_c_and_close_input)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.isascii()


NARROW = """
import os, sys
from clients.contract.__main__ import main
for os.environ["COLUMNS"] in ("10", "9", "1"):
    print(main(), file=sys.stderr)
"""


def test_a_terminal_of_ten_columns_and_of_less(hostile):
    line = [sys.executable, "-c", NARROW, hostile, "each_message_is_greeted"]
    env = os.environ | {"LINES": "3"}
    assert run_captured(line, cwd=ROOT, env=env).stderr == "1\n1\n1\n"


def test_a_server_that_closes_its_own_output_is_one_like_any_other(tmp_path):
    program = tmp_path / "closes.py"
    closes = "    serve(listener, lambda"
    text = models()["01_blocking"].read_text()
    assert text.count(closes) == 1
    program.write_text(text.replace(closes, f"    os.close(1)\n{closes}"))
    done = cli("clients.contract", program, "each_message_is_greeted", "sigterm_ends_it", env=WIDE)
    assert (done.returncode, done.stderr) == (0, "")
    play(program, shows("main: "), size=(140, 60))


@pytest.mark.parametrize(
    ("words", "status", "answer"),
    [
        (["clients.classroom"], 2, "needs a terminal"),
        (["clients.client"], 2, "standard input is closed"),
        (["clients.crowd", "--port", "9", "--clients", "1"], 1, ""),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_a_closed_standard_input(words, status, answer):
    done = cli(*words, env=WIDE, preexec_fn=lambda: os.close(0))
    assert done.returncode == status
    assert answer in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_server_whose_standard_output_takes_nothing(model):
    line, pipe = [sys.executable, str(model[1]), "--port", "0"], subprocess.PIPE
    with open("/dev/full", "w") as full, spawn(line, stdout=full, stderr=pipe) as one:
        said = one.communicate(timeout=60)[1]
    # Newer Pythons (3.13 has it) flush it once more, and report in two lines that they cannot.
    assert (one.returncode, said.count(b"\n")) in {(1, 1), (120, 3)}
    assert said.startswith(b"cannot listen on 127.0.0.1:0: ")
    assert b"Traceback" not in said


def test_a_server_whose_standard_input_is_closed_serves(model):
    line = [sys.executable, str(model[1]), "--port", "0"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with spawn(line, **streams, preexec_fn=lambda: os.close(0)) as one, one.stdout:
        port = int(one.stdout.readline().rpartition(b":")[2])
        with Client(port=port) as client:
            client.greet(b"bob")
