"""The deliberate faults: each is one small change that exactly one claim has to catch.

They are also the proof that the contract can fail: each claim has a fault that breaks it.
"""

import os
import pty
import re
import signal
import socket
import subprocess

import psutil
import pytest

from clients import break_it
from clients.contract.checks import CLAIMS
from clients.contract.server_under_test import judge
from clients.system import processes

FAULTS = [
    fault
    for program in processes.models().values()
    for fault in break_it.faults_of(program).values()
]
SERVERS = {fault.program for fault in FAULTS}


def by_name(fault):
    return f"{fault.program.parent.name}-{fault.name}"


def command(*words):
    return processes.tool("clients.break_it", *words)


def ask(*words):
    """Run the command as a script does, with no terminal."""
    return subprocess.run(
        command(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )


# The faults


@pytest.mark.parametrize("fault", FAULTS, ids=by_name)
def test_a_fault_is_caught_by_its_claim(fault):
    compile(fault.broken(), fault.name, "exec")
    with fault.copied() as copy:  # on a busy machine the claim may hold now and then
        assert any(catches(CLAIMS[fault.claim], copy) for _ in range(3))


def catches(claim, program):
    """Say whether the claim is broken; what never comes is not waited for long."""
    return judge(program, claim, patience=1.0, a_while=0.4)[0] == "broken"


def test_each_claim_has_a_fault_that_breaks_it():
    assert set(CLAIMS) == {fault.claim for fault in FAULTS}


def test_a_fault_of_a_changed_server_says_so(tmp_path):
    fault = FAULTS[0]
    changed = tmp_path / "server.py"
    changed.write_text("pass\n")
    with pytest.raises(ValueError, match="0 times"):
        break_it.Fault(changed, fault.name, "", "", fault.claim, fault.changes).broken()


# Every line has its fault

PLUMBING = re.compile(
    r"import |from |@dataclass|def |class |try:|else:|while True:|args = |main\(\)|if __name__|"
    r"parser[ .]|logging\.(info|warning)"
)
EXEMPT = {
    # Nothing works without these, and everybody sees that.
    "handle(conn, remote, greet)",
    "epoll = select.epoll()",
    "listener_fd, clients = listener.fileno(), {}  # {descriptor: Client}",
    "if fd == listener_fd:",
    "accept_all(listener, epoll, clients)",
    "conn: socket.socket",
    "remote: tuple[str, int]  # the client's address",
    "bytes_received: int = 0",
    'unsent: bytes = b""  # the rest of a reply; EPOLLOUT is watched while there is one, else EPOLLIN',
    "reply = client.unsent",
    # Every Linux has epoll.
    'if not hasattr(select, "epoll"):',
    # It saves a call of a clock, and that is all it does.
    "if compute:",
    # epoll reports a socket for writing only when a third of its buffer is free, so send() finds
    # room nearly always. A test in 03_epoll fills the buffer for these two lines.
    "except BlockingIOError:  # nothing to read, or no room to write: epoll will report it",
    "sent = 0",
}


def touched(fault):
    """Return the lines of the server that the fault changes, without their indentation."""
    before = fault.program.read_text()
    lines = set()
    for was, _ in fault.changes:
        start = before.index(was)
        first, last = before.count("\n", 0, start), before.count("\n", 0, start + len(was.rstrip()))
        lines |= {line.strip() for line in before.splitlines()[first : last + 1]}
    return lines


def lines_of(program):
    """Return the lines of a server, without docstrings, comments and indentation."""
    text = re.sub(r'""".*?"""', "", program.read_text(), flags=re.DOTALL)
    lines = {line.strip() for line in text.splitlines()} - {""}
    return {line for line in lines if not line.startswith("#")}


def test_every_line_that_is_not_plumbing_has_a_fault_or_a_reason():
    # Lines that the servers share need a fault in one of them.
    faulty = set().union(*map(touched, FAULTS))
    all_lines = set().union(*map(lines_of, SERVERS))
    plain = {line for line in all_lines if PLUMBING.match(line)}
    assert all_lines - plain - faulty == EXEMPT


# The command


@pytest.mark.parametrize("name", sorted(program.parent.name for program in SERVERS))
def test_it_lists_every_fault_of_a_server(name):
    done = ask(name)
    assert done.returncode == 0
    for fault in break_it.faults_of(processes.find(name)).values():
        assert fault.name in done.stdout
        assert fault.symptom.split()[0] in done.stdout


def test_it_shows_the_change_and_the_check_that_fails():
    done = ask("02_threaded", "said-twice")
    assert done.returncode == 0, done.stderr
    assert "-                conn.sendall(greet(chunk))" in done.stdout
    assert "+                conn.sendall(greet(chunk) + chunk)" in done.stdout
    assert "each message is greeted" in done.stdout
    assert "received b'bobHello'" in done.stdout


def test_hidden_it_shows_neither_the_line_nor_the_lesson():
    done = ask("02_threaded", "said-twice", "--hide")
    assert done.returncode == 0, done.stderr
    assert "sendall" not in done.stdout
    assert "stream" not in done.stdout
    assert "The client says bob" in done.stdout
    assert "received b'bobHello'" in done.stdout


def test_a_fault_that_is_not_caught_is_no_success(tmp_path):
    program = tmp_path / "server.py"
    program.write_text(processes.find("01_blocking").read_text())
    program.with_name("faults.toml").write_text(
        'harmless = {symptom="", teaches="", claim="sigterm_ends_it", changes=[["1024","1024"]]}'
    )
    done = ask(str(program), "harmless")
    assert done.returncode == 1
    assert "not caught" in done.stdout


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["04_none"], "no server 04_none"),
        (["03_epoll", "no-such"], "no fault no-such"),
        ([break_it.__file__], "no faults.toml"),
    ],
)
def test_what_it_cannot_do_it_says_in_one_line(words, answer):
    done = ask(*words)
    assert done.returncode == 1
    assert answer in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_on_a_terminal_the_broken_server_runs_until_ctrl_c_and_leaves_nothing(tmp_path):
    ours, its = pty.openpty()
    with open(ours, "rb", buffering=0), open(its, "rb", buffering=0) as terminal:
        process = psutil.Popen(
            command("02_threaded", "said-twice"),
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
            last_words = process.stdout.read()
        assert process.wait(20) == 0
    assert "said b'bob'" in last_words
    assert not server.is_running()
    assert not list(tmp_path.iterdir())
