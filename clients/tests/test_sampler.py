"""The observer tells on which line and in which system call each thread of a server stands."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from clients import xray
from clients.client import Client
from clients.contract.checks import CHECKS
from clients.contract.server_under_test import ServerUnderTest
from clients.system import processes
from clients.system.observer import Observed, observe

PATIENCE = 20.0  # seconds within which what must be seen has to be seen


@contextlib.contextmanager
def observed(name, clients, *options):
    """Yield a model under the observer and so many silent clients, connected to it."""
    with observe(processes.find(name), *options) as server, contextlib.ExitStack() as stack:
        address = server.server.address
        yield server, [stack.enter_context(Client(*address, PATIENCE)) for _ in range(clients)]


def until(server, condition):
    """Return the first sample whose threads fulfil the condition."""
    deadline = time.monotonic() + PATIENCE
    while not ((sample := server.sample()) and condition(sample["threads"])):
        assert server.server.process.poll() is None, server.server.log()
        assert time.monotonic() < deadline, sample
        time.sleep(0.02)
    return sample["threads"]


def line(name, text):
    """Return the number of the first line of a model's program that holds the text."""
    lines = processes.find(name).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def in_call(name):
    return lambda threads: all(thread["call"] == name for thread in threads)


def test_with_nobody_there_01_stands_in_accept():
    with observed("01_blocking", 0) as (server, _):
        [main] = until(server, in_call("accept4"))
    assert (main["name"], main["function"], main["peer"]) == ("main", "serve", None)
    assert main["line"] == line("01_blocking", "listener.accept")


def test_with_a_silent_client_01_stands_in_recv_and_waits_for_that_client():
    with observed("01_blocking", 2) as (server, clients):
        [main] = until(server, in_call("recvfrom"))
        assert main["peer"] == "%s:%d" % clients[0].socket.getsockname()
    assert (main["function"], main["line"]) == ("handle", line("01_blocking", "conn.recv"))


def test_with_a_client_that_never_reads_01_stands_in_send():
    with observed("01_blocking", 0, "--quiet") as (server, _):
        with ServerUnderTest(server.server, quiet_period=0.2).connect() as client:
            client.flood(2**24)
            [main] = until(server, in_call("sendto"))
    assert main["line"] == line("01_blocking", "conn.sendall")


@pytest.mark.parametrize("count", [5, 50])
def test_02_has_a_thread_in_recv_for_each_client_and_main_in_accept(count):
    with observed("02_threaded", count, "--backlog", 64) as (server, clients):
        main, *others = until(
            server,
            lambda threads: (
                [thread["call"] for thread in threads] == ["accept4"] + ["recvfrom"] * count
            ),
        )
        ours = {"%s:%d" % client.socket.getsockname() for client in clients}
    assert main["line"] == line("02_threaded", "listener.accept")
    assert {thread["line"] for thread in others} == {line("02_threaded", "conn.recv")}
    assert {thread["peer"] for thread in others} == ours
    assert len({thread["id"] for thread in others}) == count


@pytest.mark.parametrize("count", [0, 50])
def test_03_has_one_thread_and_it_stands_in_epoll_wait(count):
    with observed("03_epoll", count, "--backlog", 64) as (server, clients):
        for client in clients:
            client.greet(b"hello")
        [main] = until(server, in_call("epoll_wait"))
    assert (main["name"], main["function"]) == ("main", "serve")
    assert main["line"] == line("03_epoll", ".poll(")


@pytest.mark.parametrize(
    ("options", "text", "call"),
    [
        (("--compute", 60), "while time.thread_time()", "running"),
        (("--wait", 60), "time.sleep(wait)", "clock_nanosleep"),
    ],
)
def test_a_server_that_computes_is_running_and_one_that_waits_sleeps(options, text, call):
    with observed("03_epoll", 1, *options) as (server, [client]):
        client.socket.sendall(b"work")
        [main] = until(
            server,
            lambda threads: (threads[0]["function"], threads[0]["call"]) == ("greeting", call),
        )
    assert main["line"] - line("03_epoll", text) in (0, 1)


@pytest.mark.parametrize(
    "check",
    [
        "ctrl_c_ends_it",
        "a_signal_ends_it_during_a_request",
        "no_descriptor_or_thread_leaks",
        "its_first_line_is_the_listening_address",
    ],
)
def test_a_server_keeps_its_contract_under_the_observer(model, check):
    with observe(model[1], *CHECKS[check].options) as server:
        CHECKS[check](ServerUnderTest(server.server))


def test_each_look_is_later_than_the_one_before():
    with observed("01_blocking", 0) as (server, _):
        times = [0]
        for _ in range(5):
            until(server, lambda _: server.sample()["at"] != times[-1])
            times.append(server.sample()["at"])
    assert times == sorted(set(times))


def test_a_reader_that_goes_and_comes_again_does_not_disturb_the_server(tmp_path):
    file = tmp_path / "gone" / "sample.json"
    program = processes.find("01_blocking")
    with processes.running_server(program, through=(xray.__file__, "--to", file)) as server:
        with Client(*server.address) as client:
            assert client.greet(b"still there?") == b"Hello, still there?"
        time.sleep(3 * xray.EVERY)
        file.parent.mkdir()
        until(Observed(server, file), in_call("accept4"))
        assert "Traceback" not in server.log()


def test_a_server_ends_when_the_program_that_watches_it_is_killed():
    code = (
        "import time\n"
        "from clients.system import processes\n"
        "from clients.system.observer import observe\n"
        "with observe(processes.find('01_blocking')) as watched:\n"
        "    print(watched.server.process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    watcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    server = psutil.Process(int(watcher.stdout.readline()))
    try:
        watcher.kill()
        watcher.wait()
        gone, _ = psutil.wait_procs([server], PATIENCE)
        assert gone
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            server.kill()
        watcher.stdout.close()


def test_without_a_file_it_prints_what_changes():
    line = processes.command(processes.find("01_blocking"), "--port", 0, through=(xray.__file__,))
    program = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout.readline().startswith("listening on ")
    printed = ""
    while "accept4" not in printed:
        printed = program.stderr.readline()
        assert printed
    time.sleep(3 * xray.EVERY)
    program.send_signal(signal.SIGTERM)
    out, err = program.communicate(timeout=PATIENCE)
    assert (out, program.returncode) == ("", 0)
    assert "stopped" in err.splitlines()  # the observer may say a last word after it
    assert "accept4" not in err


def test_a_crash_shows_its_last_words(tmp_path):
    (tmp_path / "server.py").write_text("import sys\nprint(sys.argv, __name__)\n1 / 0\n")
    with pytest.raises(processes.LaunchError, match=r"ZeroDivisionError: division by zero"):
        with observe(tmp_path / "server.py"):
            pass


def test_without_proc_there_are_still_the_lines(monkeypatch):
    monkeypatch.setattr(xray, "TASKS", Path("/nowhere"))
    here, done = threading.Event(), threading.Event()

    def wait_for_the_end():
        here.set()
        done.wait()

    thread = threading.Thread(target=wait_for_the_end, name="sleeper")
    thread.start()
    here.wait()
    sample = xray.look(__file__)
    done.set()
    thread.join()
    [row] = [row for row in sample["threads"] if row["name"] == "sleeper"]
    assert not sample["kernel"]
    assert (row["function"], row["call"]) == ("wait_for_the_end", None)


def test_it_brings_only_the_standard_library_into_the_server(tmp_path):
    program = tmp_path / "server.py"
    program.write_text("import sys\nprint(*sys.modules)\n")
    alone, observed = (
        subprocess.check_output(processes.command(program, through=through), text=True).split()
        for through in ([], [xray.__file__])
    )
    brought = {name.split(".")[0] for name in set(observed) - set(alone)}
    assert "argparse" in brought
    assert brought <= sys.stdlib_module_names


def test_peer_leaves_the_socket_to_its_owner():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert xray.peer(ours.fileno()) is None
        ours.sendall(b"still open")
        assert theirs.recv(1024) == b"still open"
