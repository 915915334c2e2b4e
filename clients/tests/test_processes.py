"""Processes: every model is found, and nothing that was started outlives its program."""

import os
import subprocess
import sys
from textwrap import dedent

import psutil
import pytest

from clients.client import Client
from clients.system import processes, reaper
from clients.system.processes import LaunchError, find_server, running_server
from conftest import DEADLINE, wait_until


def write(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def stubborn(tmp_path):
    """A server that ignores SIGTERM and has a child process."""
    text = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"])
print("child", child.pid)
print("listening on 127.0.0.1:9", flush=True)
time.sleep(600)
"""
    return write(tmp_path / "stubborn.py", text)


def test_it_finds_the_three_models_in_order():
    assert list(processes.models())[:3] == ["01_blocking", "02_threaded", "03_epoll"]


def test_a_folder_with_a_server_is_a_model(tmp_path, monkeypatch):
    for folder in ("04_mine", "10_late", "notes", "1_short"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "server.py", "")
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    assert list(processes.models()) == ["04_mine", "10_late"]


def test_a_server_is_found_by_model_folder_or_path(tmp_path):
    program = processes.models()["03_epoll"]
    assert (
        find_server("03_epoll")
        == find_server(str(program.parent))
        == find_server(str(program))
        == program
    )
    with pytest.raises(LaunchError, match="01_blocking, 02_threaded, 03_epoll"):
        find_server(str(tmp_path / "missing.py"))


def test_it_runs_and_is_gone_afterwards(model):
    name, program = model
    with running_server(program) as server:
        assert server.name == name
        with Client(*server.address) as client:
            client.greet(b"bob")
        pid = server.process.pid
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


def test_it_is_gone_when_the_body_raises(model):
    with pytest.raises(ZeroDivisionError), running_server(model[1]) as server:
        raise ZeroDivisionError
    assert server.process.poll() is not None


def test_it_may_have_been_killed(model):
    with running_server(model[1]) as server:
        server.process.kill()
        server.process.wait()


def test_a_program_that_is_slow_to_stop_goes_with_its_children(stubborn):
    with running_server(stubborn, grace=0.1) as server:
        children = server.process.children()
        assert children
    assert not psutil.pid_exists(server.process.pid)
    _, alive = psutil.wait_procs(children, timeout=DEADLINE)
    assert not alive


def names(process):
    """Return the names of the programs of a process tree."""
    return [one.name() for one in processes.process_tree(process)]


@pytest.mark.parametrize(
    "how",
    [
        "if os.fork() == 0: os.setsid(); os.fork() or run(['sleep', '600'])",  # a daemon
        "if os.fork() == 0: os.fork() or run(['env', '-i', 'sleep', '600'])",  # no environment
        "if os.fork() == 0: os.setsid(); run(['env', '-i', 'sleep', '600'])",
    ],
)
def test_a_daemon_is_found_and_ends_with_its_server(tmp_path, how):
    text = f"""
import os, time
def run(words):
    os.close(1)
    os.close(2)
    os.execvp(words[0], words)
{how}
print("listening on 127.0.0.1:9", flush=True)
time.sleep(600)
"""
    with running_server(write(tmp_path / "daemon.py", text)) as server:
        wait_until(lambda: "sleep" in names(server.process), "the daemon")
        tree = processes.process_tree(server.process)
    _, alive = psutil.wait_procs(tree, timeout=DEADLINE)  # they are not our children
    assert not [one for one in alive if one.status() != "zombie"]


def test_what_a_killed_program_has_started_ends_with_it_and_its_folder_is_gone(tmp_path):
    text = """
import time
from clients.system import processes, reaper
program = processes.find_server("02_threaded")
with processes.temp_dir() as place, processes.running_server(program) as server:
    print(place, server.process.pid, flush=True)
    time.sleep(600)
"""
    line = [sys.executable, "-c", text]
    with subprocess.Popen(line, cwd=processes.ROOT, stdout=subprocess.PIPE, text=True) as process:
        place, pid = process.stdout.readline().split()
        assert os.path.isdir(place)
        process.kill()
    wait_until(lambda: not psutil.pid_exists(int(pid)) and not os.path.isdir(place), "cleanup")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise SystemExit('I am ill')", "exit status 1.*I am ill"),
        (r"raise SystemExit('\x1b[2Jill')", r"log: ·\[2Jill"),
        ("print('hello')", "exit status 0.*nothing"),
        ("print('listening on 127.0.0.1:99999')", "127.0.0.1:99999, where nobody can connect"),
        ("print('listening on 127.0.0.1:0')", "127.0.0.1:0, where nobody can connect"),
        (f"print('listening on {'x' * 99}:9')", "x:9, where nobody can connect"),
        ("print('listening on ::1:9')", "nobody can connect: that is IPv6, and .* IPv4 only"),
        ("import os; os.close(1); os.close(2)", "exit status 0.*nothing"),
        ("import time; time.sleep(600)", "still runs"),
    ],
)
def test_the_end_of_its_log_is_reported(tmp_path, text, words):
    with pytest.raises(LaunchError, match=f"(?s){words}"):
        with running_server(write(tmp_path / "ill.py", text), timeout=1):
            pass


def test_what_is_no_program_is_reported(tmp_path):
    with pytest.raises(LaunchError, match="cannot start"):
        with running_server(write(tmp_path / "notes.txt", "no program")):
            pass


def test_a_program_in_any_language(tmp_path):
    program = write(tmp_path / "server", "#!/bin/sh\necho listening on 127.0.0.1:9\nexec sleep 9\n")
    os.chmod(program, 0o755)
    with running_server(program) as server:
        assert server.address == ("127.0.0.1", 9)


def test_a_server_with_much_output_never_blocks(tmp_path):
    text = """
import sys
print("listening on 127.0.0.1:9")
for stream in sys.stdout, sys.stderr:
    print("x" * 1_000_000, file=stream, flush=True)
raise SystemExit(3)
"""
    with running_server(write(tmp_path / "verbose.py", text)) as server:
        assert server.process.wait(DEADLINE) == 3
        wait_until(lambda: len(server.log()) >= 1_000_000, "the whole log")
        assert len(server.log()) == 1_000_001


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_endless_output_is_bounded_and_that_is_said(tmp_path, capsys, stream, end):
    text = f"""
import sys
print("listening on 127.0.0.1:9", flush=True)
print("first", file=sys.stderr, flush=True)
while True:
    print("x" * 100_000, end={end!r}, file=sys.{stream}, flush=True)
"""
    us, before = psutil.Process(), psutil.Process().memory_info().rss
    with running_server(write(tmp_path / "endless.py", text)) as server:
        counters = server.process.io_counters
        wait_until(lambda: counters().write_chars >= 64 * 2**20, "64 MiB of output")
        assert us.memory_info().rss - before < 32 * 2**20
        assert len(server.log()) < 16 * 2**20
        assert server.log().startswith("first")
        assert server.output[0] == "listening on 127.0.0.1:9\n"
    assert "endless wrote without end: " in capsys.readouterr().err


def test_processes_that_take_long_to_end_are_waited_for_and_others_reported(monkeypatch):
    monkeypatch.setattr(reaper, "TIMEOUT", 0.02)
    trees = iter([{1, 2}] * 20 + [{2}] * 1000)
    ticks = iter([*range(20), *[20] * 1000])
    monkeypatch.setattr(reaper, "process_tree", lambda *_: next(trees))
    monkeypatch.setattr(reaper, "_exit_ticks", lambda _: next(ticks))
    monkeypatch.setattr(reaper, "_signal", lambda *_: None)
    assert reaper.kill_tree("mark", []) == {2}


def test_only_a_process_that_is_ending_makes_progress():
    code = "import os; x = bytearray(10**8); print(flush=True); os._exit(0)"
    assert reaper._exit_ticks([os.getpid()]) == 0
    with processes.spawn([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.read()
        wait_until(lambda: process.status() == "zombie")
        assert reaper._exit_ticks([process.pid]) > 0


def test_a_server_of_another_user_is_named_as_such_and_ends(other_user):
    wrapper, program = other_user
    code = dedent("""
        import sys
        from clients.system import processes
        with processes.running_server(processes.find_server(sys.argv[1])) as server:
            print(server.process.pid, flush=True)
            processes.require_access(server.process)
    """)
    line = [*wrapper, sys.executable, "-c", code, program]
    done = subprocess.run(line, cwd=processes.ROOT, capture_output=True, text=True)
    pid = int(done.stdout)
    last = done.stderr.splitlines()[-1]
    assert f"LaunchError: process {pid} runs as another user" in last
    assert not psutil.pid_exists(pid)
