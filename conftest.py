"""What all the tests share: every model found, and each of them running on a free port."""

import contextlib
import signal

import pytest

from clients.system import processes

# pytest-xdist's workers ignore Ctrl-C, and so would all the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def serve():
    """Return a starter: serve("01_blocking", "--wait", 1) runs that model until the test ends."""
    with contextlib.ExitStack() as stack:
        yield lambda name, *options: stack.enter_context(
            processes.running_server(processes.find(name), *options)
        )


def pytest_generate_tests(metafunc):
    """Run a test that asks for a model once for each of them, by the folder's name."""
    if "model" in metafunc.fixturenames:
        metafunc.parametrize("model", processes.models().items(), ids=processes.models())
