"""What all the tests share: each model on a free port, a command's output, waiting for a state."""

import contextlib
import re
import signal
import subprocess
import time

import pytest

from clients.system import processes

DEADLINE = 300.0  # seconds: only a test that fails waits as long, on a busy machine too

# pytest-xdist's workers ignore Ctrl-C, and so would all the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def cli(module, *options, **more):
    """Run a module of the repository as a reader does, at its top; return a CompletedProcess.

    Its output is captured as text, its input is empty. more: for subprocess.run, such as input.
    """
    how = {"cwd": processes.ROOT, "text": True, "timeout": DEADLINE, "capture_output": True}
    if "input" not in more:
        how["stdin"] = subprocess.DEVNULL
    return subprocess.run(processes.module_command(module, *options), **how | more)


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


@pytest.fixture
def serve():
    """Return a starter: serve("01_blocking", "--wait", 1) runs that model until the test ends."""
    with contextlib.ExitStack() as stack:
        yield lambda name, *options: stack.enter_context(
            processes.running_server(processes.find_server(name), *options)
        )


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
