"""macOS and Windows, pretended: what the front page promises runs, and all else says one line.

Hidden is what these systems lack; what they have beside it can only be seen on a real one.
"""

import subprocess
import sys

import pytest

from clients.client import Client
from clients.system import processes

PRETEND = """
import asyncio, builtins, importlib.resources, io, os, psutil, runpy, select, shutil, signal
import subprocess, sys, tempfile, textual.app  # they run there, and ask once which system it is

UNIX = "killpg getpgid getsid setsid fork sysconf getuid set_blocking"  # "on Unix" in the manual
system, sys.argv = sys.argv[1], sys.argv[2:]
missing = {os: "sched_getaffinity sched_setaffinity posix_fallocate unshare setns pidfd_open"}
missing[select] = " ".join(name for name in dir(select) if name.startswith(("epoll", "EPOLL")))
if system == "win32":
    for name in ("resource", "fcntl", "termios", "pwd", "grp", "uvloop"):
        sys.modules[name] = None
    missing[os] += f" {UNIX}"
    missing[select] += " poll POLLIN POLLOUT POLLHUP POLLERR"
    missing[signal] = "SIGHUP SIGKILL SIGCHLD SIGQUIT SIGALRM"
for owner, names in missing.items():
    for name in names.split():
        if hasattr(owner, name):
            delattr(owner, name)

def hiding(function):
    def hidden(path=".", *more, **options):
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith("/proc"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return function(path, *more, **options)
    return hidden

builtins.open = io.open = hiding(open)
for name in ("open", "stat", "listdir", "scandir", "readlink"):
    setattr(os, name, hiding(getattr(os, name)))
sys.platform = system
sys.path.insert(0, os.getcwd())
if sys.argv[0].endswith(".py"):
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
SYSTEMS = ["darwin", "win32"]
NEED_LINUX = [
    "clients.classroom",
    "clients.contract 01_blocking",
    "clients.break_it 01_blocking",
    "clients.trace",
    "load_tests.compare",
    "load_tests.bench 01_blocking",
    "load_tests.bench_check",
    "notebooks.execute 1_sockets",
    "03_epoll/server.py",
    "load_tests/alternatives/uvloop_protocol.py",
    "load_tests/alternatives/prefork.py",
]


def through(system):
    return ("-c", PRETEND, system)


def ask(system, *words):
    line = [sys.executable, *through(system), *map(str, words)]
    return subprocess.run(line, cwd=processes.ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", ["01_blocking", "02_threaded"])
def test_what_is_promised_runs(name, system):
    with processes.running_server(processes.find(name), through=through(system)) as server:
        port = ("--port", server.address[1])
        done = ask(system, "clients/client.py", *port, "--message", "bob")
        assert (done.stdout, done.stderr) == ("Hello, bob\n", "")
        done = ask(system, "clients.crowd", *port, "--clients", 3, "--every", 0, "--think", 0)
        assert (done.returncode, done.stderr) == (0, "")
        assert "9 answered" in done.stdout
        with Client(*server.address) as client:
            assert client.greet(b"ann") == b"Hello, ann"


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("words", NEED_LINUX)
def test_what_needs_linux_says_so_in_one_line(words, system):
    if system == "darwin" and "uvloop" in words:
        pytest.skip("uvloop runs on macOS")
    done = ask(system, *words.split())
    assert done.returncode in (1, 2)
    assert "Linux" in done.stderr
    assert "container" in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
