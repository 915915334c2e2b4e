"""macOS and Windows, pretended: what the front page promises runs, and all else reports one line.

What these systems lack is hidden; what they have instead can only be seen on a real one.
"""

import json
import subprocess
import sys

import pytest

from clients.client import Client
from clients.system import processes
from conftest import DEADLINE

PRETEND = """
import asyncio, builtins, importlib, importlib.resources, io, os, psutil, runpy, select, shutil
import signal, subprocess, sys, sysconfig, tempfile
import multiprocessing.connection  # there it uses what only the real system has

UNIX = "killpg getpgid getsid setsid fork sysconf getuid set_blocking"  # "on Unix" in the manual
sysconfig.get_config_vars()  # read from a file that the pretended system does not have
system, ready, sys.argv = sys.argv[1], sys.argv[2], sys.argv[3:]
importlib.import_module(ready)  # it runs there too, and looks once at the system
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
if sys.argv[0] == "-c":
    exec(sys.argv[1])
elif sys.argv[0].endswith(".py"):
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
TRY_ALL = """
import contextlib, importlib, io, json, os, runpy, sys
modules, commands = json.loads(sys.argv[2])
sys.path.append("notebooks")
failed, ended = {}, {}
for module in modules:
    try:
        importlib.import_module(module)
    except BaseException as error:
        failed[module] = repr(error)
for command in commands:
    out, err, status, path = io.StringIO(), io.StringIO(), 0, sys.path[:]
    sys.argv = command.split()
    for module in (sys.argv[0], f"{sys.argv[0]}.__main__"):
        sys.modules.pop(module, None)  # runpy would warn that it is there
    run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run(sys.argv[0], run_name="__main__")
        except SystemExit as end:  # as Python ends: a text is printed
            status = end.code if isinstance(end.code, int) else print(end, file=err) or 1
    ended[command] = [status, out.getvalue(), err.getvalue()]
    sys.path[:] = path
print(json.dumps([failed, ended]))
"""
SYSTEMS = ["darwin", "win32"]
NEED_LINUX = [
    "clients.classroom",
    "clients.contract 01_blocking",
    "clients.break_it 01_blocking",
    "clients.trace",
    "load_tests.compare",
    "load_tests.bench 01_blocking",
    "notebooks.execute 1_sockets",
    "notebooks.free_threaded --python python3",
    "03_epoll/server.py",
    "load_tests/alternatives/uvloop_protocol.py",
    "load_tests/alternatives/prefork.py",
]
RUNS_ON_MACOS = "load_tests/alternatives/uvloop_protocol.py"
ON_LOCUST = {  # gevent imports what only the real system has
    "load_tests.locustfile",
    "load_tests.harness.locust_tab",
}
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("platforms")]


def wrapper(system, ready="socket"):
    """Return Python's options that pretend a system; ready: a module to be imported before."""
    return ("-c", PRETEND, system, ready)


def pretend(system, *words, ready="socket"):
    """Run a program on a pretended system; return what subprocess.run does."""
    line = [sys.executable, *wrapper(system, ready), *map(str, words)]
    return subprocess.run(
        line, cwd=processes.ROOT, capture_output=True, text=True, timeout=DEADLINE
    )


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_promised_runs(system):
    """Both servers, and both programs for clients, each with one of them."""
    programs = map(processes.find_server, ("01_blocking", "02_threaded"))
    one, other = (processes.running_server(path, wrapper=wrapper(system)) for path in programs)
    with one as blocking, other as threaded:
        port = ("--port", blocking.address[1])
        done = pretend(system, "clients/client.py", *port, "--message", "bob")
        assert (done.stdout, done.stderr) == ("Hello, bob\n", "")
        port = ("--port", threaded.address[1])
        crowd = ("clients.crowd", *port, "--clients", 3, "--every", 0, "--think", 0)
        done = pretend(system, *crowd, ready="rich.console")
        assert (done.returncode, done.stderr) == (0, "")
        assert "9 answered" in done.stdout
        for server in (blocking, threaded):
            with Client(*server.address) as client:
                assert client.greet(b"ann") == b"Hello, ann"


def modules():
    """Return the names of all modules of the repository, except tests and single programs."""
    for floor in ("clients", "load_tests", "notebooks"):
        for file in sorted((processes.ROOT / floor).rglob("*.py")):
            parts = file.relative_to(processes.ROOT).with_suffix("").parts
            if not {"tests", "alternatives"} & set(parts):
                yield ".".join(parts).removesuffix(".__init__").replace("notebooks.lab", "lab")


@pytest.fixture(scope="module", params=SYSTEMS)
def tried(request):
    """Return a system, {module: error of its import} and {command: (status, output, errors)}."""
    system = request.param
    wanted = [module for module in modules() if module not in ON_LOCUST]
    commands = [name for name in NEED_LINUX if system != "darwin" or name != RUNS_ON_MACOS]
    done = pretend(system, "-c", TRY_ALL, json.dumps([wanted, commands]), ready="textual.app")
    assert done.stderr == ""
    return system, *json.loads(done.stdout)


@pytest.mark.parametrize("command", NEED_LINUX)
def test_what_needs_linux_reports_it_in_one_line(tried, command):
    system, _, ended = tried
    if system == "darwin" and command == RUNS_ON_MACOS:
        pytest.skip("uvloop runs on macOS")
    status, out, err = ended[command]
    assert status in (1, 2)
    assert "Linux" in err
    assert "container" in err
    assert (out, err.count("\n")) == ("", 1)


def test_no_import_exits_or_fails(tried):
    assert tried[1] == {}
