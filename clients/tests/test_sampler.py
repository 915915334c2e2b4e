"""The sampler finds each thread of a server on its line and in its system call."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from clients.client import Client
from clients.contract.checks import CHECKS
from clients.contract.server_under_test import ServerUnderTest
from clients.system import processes, procfs
from clients.system.frames import FIRST_OWN_FD, frames
from clients.system.sampler import thread_states
from clients.system.sockets import unix_listener
from clients.trace import tracer
from clients.trace.session import traced
from conftest import DEADLINE


@contextlib.contextmanager
def sampled(name, *options):
    """Yield the Session of a model, and a function that connects clients to it."""
    with (
        traced(processes.find_server(name), *options) as session,
        contextlib.ExitStack() as stack,
    ):
        address = session.server.address
        yield (
            session,
            lambda count=1: [stack.enter_context(Client(*address, DEADLINE)) for _ in range(count)],
        )


def sample_of(session):
    return thread_states(session.server.process.pid, session.frames)


def until(session, condition):
    """Return the first sample that fulfils the condition."""
    deadline = time.monotonic() + DEADLINE
    while not condition(sample := sample_of(session)):
        assert session.server.process.poll() is None, session.server.log()
        assert time.monotonic() < deadline, sample
        time.sleep(0.02)
    return sample


def line(name, text):
    """Return the number of the first line of a model's program that contains the text."""
    lines = processes.find_server(name).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def in_call(name):
    return lambda sample: all(thread.call == name for thread in sample)


def test_01_is_in_accept_and_then_in_recv_for_its_first_client():
    with sampled("01_blocking") as (session, connect):
        [main] = until(session, in_call("accept4"))
        assert (main.name, main.function, main.remote) == ("main", "serve", None)
        assert main.line == line("01_blocking", "listener.accept")
        first, _ = connect(2)
        [main] = until(session, in_call("recvfrom"))
        assert main.remote == "%s:%d" % first.socket.getsockname()
        assert (main.function, main.line) == ("handle", line("01_blocking", "conn.recv"))


def test_with_a_client_that_never_reads_01_is_in_send():
    with sampled("01_blocking", "--quiet") as (session, _):
        with ServerUnderTest(session.server, quiet_period=0.2).connect() as client:

            def is_in_send(sample):
                client.flood(2**24)  # more, as long as the server takes it
                return in_call("sendto")(sample)

            [main] = until(session, is_in_send)
    assert main.line == line("01_blocking", "conn.sendall")


def test_02_has_a_thread_in_recv_for_each_client_and_main_in_accept():
    with sampled("02_threaded", "--backlog", 64) as (session, connect):
        clients = connect(50)
        main, *others = until(
            session,
            lambda sample: (
                [thread.call for thread in sample] == ["accept4", *["recvfrom"] * len(clients)]
            ),
        )
        addresses = {"%s:%d" % client.socket.getsockname() for client in clients}
    assert main.line == line("02_threaded", "listener.accept")
    assert {thread.line for thread in others} == {line("02_threaded", "conn.recv")}
    assert {thread.remote for thread in others} == addresses
    assert len({thread.id for thread in others}) == 50


def test_03_has_one_thread_in_epoll_wait_with_and_without_clients():
    with sampled("03_epoll", "--backlog", 64) as (session, connect):
        for count in (0, 50):
            for client in connect(count):
                client.greet(b"hello")
            [main] = until(session, in_call("epoll_wait"))
            assert (main.name, main.function) == ("main", "serve")
            assert main.line == line("03_epoll", ".poll(")


@pytest.mark.parametrize(
    ("options", "text", "call"),
    [
        (("--compute", 60), "while time.thread_time()", "running"),
        (("--wait", 60), "time.sleep(wait)", "clock_nanosleep"),
    ],
)
def test_a_server_that_computes_is_running_and_one_that_waits_sleeps(options, text, call):
    with sampled("03_epoll", *options) as (session, connect):
        connect()[0].socket.sendall(b"work")
        [main] = until(
            session,
            lambda sample: (sample[0].function, sample[0].call) == ("greeting", call),
        )
    assert main.line - line("03_epoll", text) in (0, 1)


@pytest.mark.parametrize(
    "check",
    [
        "ctrl_c_ends_it",
        "a_signal_ends_it_during_a_request",
        "no_descriptor_thread_or_memory_leaks",
        "its_first_line_is_the_listening_address",
    ],
)
def test_a_server_keeps_its_contract_while_it_is_sampled(model, check):
    with traced(model[1], *CHECKS[check].options) as session:
        CHECKS[check](ServerUnderTest(session.server))


def test_a_thread_that_moves_during_a_sample_is_running():
    ours, theirs = socket.socketpair()

    def receive_twice():
        theirs.recv(1)
        time.sleep(60)

    def state():
        return next(one for one in thread_states(os.getpid(), report) if one.id == thread.native_id)

    def report():
        return frames(__file__)

    thread = threading.Thread(target=receive_twice, daemon=True)
    thread.start()
    with ours, theirs:
        deadline = time.monotonic() + DEADLINE
        while (before := state()).call != "recvfrom":
            assert time.monotonic() < deadline, before

        def report():
            rows, text = frames(__file__), procfs.syscalls(os.getpid())[thread.native_id]
            ours.sendall(b"x")
            while procfs.syscalls(os.getpid())[thread.native_id] == text:
                assert time.monotonic() < deadline
            return rows

        moved = state()
    assert before.function == moved.function == "receive_twice"
    assert (moved.line, moved.call) == (before.line, "running")


def test_a_sample_takes_no_descriptor_from_the_server():
    with sampled("03_epoll") as (session, connect):
        fds = set()
        for _ in range(20):
            for client in connect():
                client.greet(b"hello")
                fds |= set(procfs.socket_fds(session.server.process.pid).values())
                sample_of(session)
        listener, first, *rest = sorted(fd for fd in fds if fd < FIRST_OWN_FD)
    assert rest == list(range(first + 1, first + 20)), listener


def test_a_server_ends_when_the_program_that_watches_it_is_killed():
    code = (
        "import time\n"
        "from clients.system import processes\n"
        "from clients.trace.session import traced\n"
        "with traced(processes.find_server('01_blocking')) as watched:\n"
        "    print(watched.server.process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    server = psutil.Process(int(parent.stdout.readline()))
    try:
        parent.kill()
        parent.wait()
        gone, _ = psutil.wait_procs([server], DEADLINE)
        assert gone
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            server.kill()
        parent.stdout.close()


def test_a_crash_shows_its_exception(tmp_path):
    (tmp_path / "server.py").write_text("import sys\nprint(sys.argv, __name__)\n1 / 0\n")
    with pytest.raises(processes.LaunchError, match=r"ZeroDivisionError: division by zero"):
        with traced(tmp_path / "server.py"):
            pass


def test_without_proc_there_are_still_the_lines():
    here, done = threading.Event(), threading.Event()

    def wait_for_the_end():
        here.set()
        done.wait()

    thread = threading.Thread(target=wait_for_the_end, name="waiting")
    thread.start()
    here.wait()
    no_such_process = 0
    sample = thread_states(no_such_process, lambda: frames(__file__))
    done.set()
    thread.join()
    [row] = [row for row in sample if row.name == "waiting"]
    assert (row.function, row.call) == ("wait_for_the_end", None)


def test_it_brings_only_the_standard_library_into_the_server(tmp_path):
    program = tmp_path / "server.py"
    program.write_text("import sys\nprint(*sys.modules)\n")
    with unix_listener() as (_, path):
        alone, sampled = (
            subprocess.check_output(processes.command(program, wrapper=wrapper), text=True).split()
            for wrapper in ([], ["-m", tracer.__name__, path, "run"])
        )
    brought = {name.split(".")[0] for name in set(sampled) - set(alone)}
    assert "json" in brought
    assert brought - {"clients"} <= sys.stdlib_module_names
