"""What all the tests share: each model on a free port, a command's output, waiting for a state."""

import collections
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from clients.system import processes

DEADLINE = 300.0  # seconds: only a test that fails waits as long, on a busy machine too

# pytest-xdist's workers ignore Ctrl-C, and so would all the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# With this variable, which containers often set, each of the programs compiles its modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def cli(module, *options, **more):
    """Run a module of the repository as a reader does, at its top; return a CompletedProcess.

    Its output is captured as text, its input is empty. more: for subprocess.run, such as input; or
    wrapper, the words before the command.
    """
    line = [*more.pop("wrapper", ()), *processes.module_command(module, *options)]
    how = {"cwd": processes.ROOT, "text": True, "timeout": DEADLINE, "capture_output": True}
    if "input" not in more:
        how["stdin"] = subprocess.DEVNULL
    return subprocess.run(line, **how | more)


def wait_until(condition, what="the expected state"):
    """Return condition() as soon as it is true; fail the test if it is still false at the deadline.

    what: the state, for the message; or a function that returns the text.
    """
    deadline = time.monotonic() + DEADLINE
    while not (result := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {DEADLINE:g} s: {what() if callable(what) else what}")
        time.sleep(0.01)
    return result


def skip_without(what, reason):
    """Skip the test: this machine cannot make what it needs. reason: text, or an exception."""
    last = str(reason).strip().splitlines()[-1]
    pytest.skip(f"this machine cannot make {what} ({last})")


def skip_unless_root():
    """Skip the test, which runs a program as another user: root without its rights cannot."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        skip_without("a program of another user", "it needs root and setpriv")
    try:
        processes.run_captured(["true"], user=65534)
    except processes.LaunchError as error:
        skip_without("a program of another user", error)


@pytest.fixture
def serve():
    """Return a starter: serve("01_blocking", "--wait", 1) runs that model until the test ends."""
    with contextlib.ExitStack() as stack:
        yield lambda name, *options: stack.enter_context(
            processes.running_server(processes.find_server(name), *options)
        )


@pytest.fixture
def other_user():
    """Return the words before a command that take root's rights away, and a server's program.

    To this command the program, a copy of a model, is another user's: its Python is set-user-ID.
    """
    skip_unless_root()
    if not (python := shutil.which("python3", path="/usr/bin")):
        skip_without("a program of another user", "there is no /usr/bin/python3")
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        copy, program = Path(place, "python3"), Path(place, "server")
        shutil.copy(python, copy)
        os.chown(copy, 65534, 65534)  # nobody
        copy.chmod(0o4755)
        program.write_text(f"#!{copy}\n{processes.find_server('02_threaded').read_text()}")
        program.chmod(0o755)
        yield ["setpriv", "--bounding-set", "-all"], program


def pytest_ignore_collect(collection_path, config):
    """Leave out files of slow tests in a quick run: to import them takes half of its CPU time."""
    if config.option.markexpr != "not slow" or not collection_path.match("test_*.py"):
        return None
    is_slow = re.search(r"^pytestmark = .*mark\.slow", collection_path.read_text(), re.MULTILINE)
    return True if is_slow else None  # None: another plugin decides


def pytest_generate_tests(metafunc):
    """Run a test that asks for a model once for each of them, by the folder's name."""
    if "model" in metafunc.fixturenames:
        metafunc.parametrize("model", processes.models().items(), ids=processes.models())


def pytest_terminal_summary(terminalreporter):
    """Count and name the skipped tests, by what this machine lacks: they have tested nothing."""
    names = collections.defaultdict(list)
    for report in terminalreporter.stats.get("skipped", ()):
        reason = report.longrepr[2].removeprefix("Skipped: ").partition(" (")[0]
        names[reason].append(report.nodeid.rpartition("/")[2])
    for reason, skipped in names.items():
        what = f"skipped because {reason}: {len(skipped)} tests: "
        terminalreporter.line(what + ", ".join(sorted(skipped)))
