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
import time
from pathlib import Path

from clients.system.processes import ROOT, LaunchError, module_command, spawn, tail, temp_dir
from load_tests.harness.runs import LOCUSTFILE

PORT = 5556  # of the comparison; Locust's master uses 5557
JOIN_TIMEOUT = 30.0  # seconds that a worker waits for a comparison that has not begun


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
    workers = Workers(address)
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server((address, PORT)))
        except OSError as error:
            raise LaunchError(f"cannot wait for workers at {address}: {error.strerror}") from error
        command = f"python -m load_tests.compare --join {address}"
        report(f"Waiting for {count} workers: .venv/bin/{command}")
        while len(workers.present()) < count:
            connection, (host, _) = listener.accept()
            workers.connections.append(stack.enter_context(connection))
            keep_alive(connection)
            report(f"{len(workers.present())} of {count} have joined: {host}")
        listener.close()
        yield workers


def join(address, report):
    """Be a worker of the comparison at address until one of the two ends; return the exit status.

    report: a function that shows a line.
    """
    try:
        comparison = connect(address)
    except OSError as error:
        text = f"for {JOIN_TIMEOUT:g} s no comparison has waited for workers at {address}"
        return f"{text} ({error.strerror or error})"
    report(f"Joined the comparison at {address}. Ctrl-C leaves it.")
    count = 0
    with comparison, comparison.makefile(errors="replace") as lines, temp_dir() as place:
        keep_alive(comparison)
        try:
            while run := lines.readline():
                report(run.strip())
                count += 1
                if error := work(address, comparison, Path(place, "output")):
                    return error
        except OSError as error:
            return f"lost the comparison at {address}: {error.strerror}"
    report(f"The comparison has ended, after {count} runs here.")
    return 0


def connect(address):
    """Return a connection to the comparison. Raises OSError after JOIN_TIMEOUT seconds."""
    until = time.monotonic() + JOIN_TIMEOUT
    while True:
        try:
            connection = socket.create_connection((address, PORT), JOIN_TIMEOUT)
            connection.settimeout(None)
            return connection
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def work(address, comparison, output):
    """Let Locust's worker make its part of one run's load; return an error in words, or None."""
    options = "-f", LOCUSTFILE, "--worker", "--master-host", address, "--exit-code-on-error", 0
    line = module_command("locust", *options, "--loglevel", "WARNING")
    with open(output, "wb") as file:
        streams = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.STDOUT}
        with spawn(line, cwd=ROOT, **streams) as worker:
            over = os.pidfd_open(worker.pid)  # readable when the process has ended
            select.select([over, comparison], [], [])
            os.close(over)
            if readable(comparison):  # the comparison has ended, or the next run begins
                return None
            status = worker.wait()
    return status and f"Locust's worker ended with {status}: {tail(output.read_text())}"


def readable(connection):
    """Return True if something has come, or the end of the connection."""
    return bool(select.select([connection], [], [], 0)[0])


def keep_alive(connection):
    """Let the kernel notice within 20 s that the other machine is gone (tcp(7))."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
        connection.setsockopt(socket.IPPROTO_TCP, option, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
