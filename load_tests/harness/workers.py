"""Several machines as one load: workers join a comparison, and stay for all of its runs.

Each worker holds a connection to the comparison, which sends it the name of each run as a line. The
worker then starts Locust's worker, which gets its users from Locust's master, and reports to it.
The end of the connection is the end of the comparison, or of the worker.
"""

import contextlib
import os
import select
import socket
import subprocess
import tempfile

from clients.system.processes import ROOT, LaunchError, module_command, spawn, tail
from load_tests.harness.runs import LOCUSTFILE

PORT = 5556  # of the comparison; Locust's master uses 5557
TIMEOUT = 10.0  # seconds that connecting to a comparison may take


class Workers:
    """The workers that have joined: a connection to each."""

    def __init__(self, address):
        self.address, self.connections = address, []

    def start(self, run):
        """Let each worker start Locust for a run (its name); return how many workers there are."""
        for one in self.present():
            with contextlib.suppress(OSError):  # it leaves at this moment
                one.sendall(run.encode() + b"\n")
        return len(self.present())

    def present(self):
        """Return the connections of the workers that have not left."""
        self.connections = [one for one in self.connections if not readable(one)]
        return self.connections


@contextlib.contextmanager
def joined(address, count, report):
    """Yield the Workers of a comparison, once count of them have joined; None if count is 0.

    report: a function that shows a line. Raises LaunchError if nothing can listen at the address.
    """
    if not count:
        yield None
        return
    try:
        listener = socket.create_server((address, PORT))
    except OSError as error:
        raise LaunchError(f"cannot wait for workers at {address}: {error.strerror}") from error
    workers = Workers(address)
    with contextlib.ExitStack() as stack:
        with listener:
            keep_alive(listener)  # its connections inherit that
            command = f".venv/bin/python -m load_tests.compare --join {address}"
            report(f"Waiting for {count} workers: {command}")
            while len(workers.present()) < count:
                connection, (host, _) = listener.accept()
                workers.connections.append(stack.enter_context(connection))
                report(f"{len(workers.present())} of {count} have joined: {host}")
        yield workers


def join(address, report):
    """Be a worker of the comparison at address until one of them ends; return the exit status."""
    try:
        comparison = socket.create_connection((address, PORT), TIMEOUT)
    except OSError as error:
        return f"no comparison waits for workers at {address}: {error.strerror or error}"
    comparison.settimeout(None)
    keep_alive(comparison)
    report(f"Joined the comparison at {address}. Ctrl-C leaves it.")
    with comparison, comparison.makefile(errors="replace") as lines:
        try:
            for run in lines:
                report(run.strip())
                if error := work(address, comparison):
                    return error
        except OSError as error:
            return f"lost the comparison at {address}: {error.strerror}"
    report("The comparison has ended.")
    return 0


def work(address, comparison):
    """Let Locust's worker make its part of one run's load; return an error in words, or None."""
    options = "-f", LOCUSTFILE, "--worker", "--master-host", address, "--exit-code-on-error", 0
    line = module_command("locust", *options, "--loglevel", "WARNING")
    with tempfile.TemporaryFile() as output:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        with spawn(line, cwd=ROOT, **streams) as worker:
            over = os.pidfd_open(worker.pid)  # readable when the process has ended
            select.select([over, comparison], [], [])
            os.close(over)
            status = None if readable(comparison) else worker.wait()  # or a next run begins
        output.seek(0)
        words = tail(output.read().decode(errors="replace"))
        return status and f"Locust's worker ended with status {status}: {words}"


def readable(connection):
    """Return True if something has come, or the end of the connection."""
    return bool(select.select([connection], [], [], 0)[0])


def keep_alive(connection):
    """Let the kernel notice within 20 s that the other machine is gone (tcp(7))."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {"KEEPIDLE": 5, "KEEPINTVL": 5, "KEEPCNT": 3}.items():
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"), value)
