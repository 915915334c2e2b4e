"""The launcher: it finds every model, and leaves nothing behind whatever happens."""

import os
import time

import psutil
import pytest

from clients.client import Client
from clients.system import launch
from clients.system.launch import LaunchError, find, running


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
    assert list(launch.models())[:3] == ["01_blocking", "02_threaded", "03_epoll"]


def test_a_folder_with_a_server_is_a_model(tmp_path, monkeypatch):
    for folder in ("04_mine", "10_late", "notes", "1_short"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "server.py", "")
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    assert list(launch.models()) == ["04_mine", "10_late"]


def test_a_server_is_found_by_model_folder_or_path(tmp_path):
    program = launch.models()["03_epoll"]
    assert find("03_epoll") == find(str(program.parent)) == find(str(program)) == program
    with pytest.raises(LaunchError, match="01_blocking, 02_threaded, 03_epoll"):
        find(str(tmp_path / "missing.py"))


def test_it_runs_and_is_gone_afterwards(model):
    name, program = model
    with running(program) as server:
        assert server.name == name
        with Client(*server.address) as client:
            client.greet(b"bob")
        pid = server.process.pid
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


def test_it_is_gone_when_the_body_raises(model):
    with pytest.raises(ZeroDivisionError), running(model[1]) as server:
        raise ZeroDivisionError
    assert server.process.poll() is not None


def test_it_may_have_ended_by_itself(model):
    with running(model[1]) as server:
        server.process.kill()
        server.process.wait()


def test_a_program_that_is_slow_to_stop_goes_with_its_children(stubborn):
    with running(stubborn, grace=0.1) as server:
        children = server.process.children()
        assert children
    assert not psutil.pid_exists(server.process.pid)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise SystemExit('I am ill')", "exit status 1.*I am ill"),
        (r"raise SystemExit('\x1b[2Jill')", r"words: ·\[2Jill"),
        ("print('hello')", "exit status 0.*nothing"),
        ("import time; time.sleep(600)", "still runs"),
    ],
)
def test_its_last_words_are_reported(tmp_path, text, words):
    with pytest.raises(LaunchError, match=f"(?s){words}"):
        with running(write(tmp_path / "ill.py", text), patience=1):
            pass


def test_what_is_no_program_is_reported(tmp_path):
    with pytest.raises(LaunchError, match="cannot start"):
        with running(write(tmp_path / "notes.txt", "no program")):
            pass


def test_a_program_in_any_language(tmp_path):
    program = write(tmp_path / "server", "#!/bin/sh\necho listening on 127.0.0.1:9\nexec sleep 9\n")
    os.chmod(program, 0o755)
    with running(program) as server:
        assert server.address == ("127.0.0.1", 9)


def test_a_talkative_server_never_blocks(tmp_path):
    text = """
import sys
print("listening on 127.0.0.1:9")
for stream in sys.stdout, sys.stderr:
    print("x" * 1_000_000, file=stream, flush=True)
raise SystemExit(3)
"""
    with running(write(tmp_path / "talkative.py", text)) as server:
        assert server.process.wait(20) == 3
        deadline = time.monotonic() + 20
        while len(server.log()) < 1_000_000 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(server.log()) == 1_000_001
