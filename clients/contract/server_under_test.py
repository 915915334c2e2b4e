"""Run a check against a server program: as a ServerUnderTest, with all that a check needs of it."""

import contextlib
import socket
import time
from dataclasses import dataclass, replace
from typing import Literal

import psutil

from clients.contract.errors import (
    DEADLINE_FACTOR,
    ContractViolation,
    DeadlineExceeded,
    NotApplicable,
)
from clients.contract.probe_client import ProbeClient
from clients.system.processes import (
    LaunchError,
    Server,
    process_tree,
    running_server,
    sum_over_tree,
)
from clients.system.procfs import all_stopped

TIMEOUT = 20.0
QUIET_PERIOD = 1.0


@dataclass(frozen=True)
class CheckResult:
    """How a server did in a check."""

    check: str  # the name of its function
    outcome: Literal["passed", "failed", "not applicable", "not run"]
    reason: str = ""  # empty if it passed


def run_check(program, check, *options, timeout=TIMEOUT, quiet_period=QUIET_PERIOD):
    """Start program with the options of the check, and these; return the CheckResult.

    timeout, quiet_period: see ServerUnderTest.
    """
    try:
        _run(program, check, options, timeout, quiet_period)
    except ContractViolation as error:
        return CheckResult(check.__name__, "failed", str(error))
    except NotApplicable as reason:
        return CheckResult(check.__name__, "not applicable", str(reason))
    return CheckResult(check.__name__, "passed")


def _run(program, check, options, timeout, quiet_period):
    limit = DEADLINE_FACTOR * (timeout + quiet_period)
    limits = {"timeout": timeout, "grace": timeout / 4}
    try:
        with running_server(program, *check.options, *options, **limits) as server:
            check(ServerUnderTest(server, timeout, quiet_period, time.monotonic() + limit))
    except DeadlineExceeded as error:
        raise ContractViolation(
            f"the check was not done after {limit:g} s, its deadline: is each greeting slow?"
        ) from error
    except LaunchError as error:
        raise ContractViolation(str(error)) from error
    except OSError as error:  # a check expects every connection to succeed
        raise ContractViolation(f"a connection failed: {error}") from error
    except psutil.AccessDenied as error:  # a set-user-ID program, for example
        raise NotApplicable(f"this machine does not allow it: {error}") from error
    except psutil.Error as error:
        raise ContractViolation(f"the server has ended: {error}") from error


@dataclass
class ServerUnderTest:
    """A running server, with the tools of the checks."""

    server: Server
    timeout: float = TIMEOUT  # seconds within which an expected event has to happen
    quiet_period: float = QUIET_PERIOD  # seconds in which something must not happen
    deadline: float = float("inf")  # of the check (time.monotonic)

    @property
    def address(self):
        """Return (host, port)."""
        return self.server.address

    @property
    def process(self):
        """Return its first process."""
        return self.server.process

    @property
    def program(self):
        """Return the path of the program."""
        return self.server.program

    def log(self):
        """Return what the server has written to standard error so far."""
        return self.server.log()

    def check_deadline(self):
        """Raise DeadlineExceeded if the check has reached its deadline; called in every loop."""
        if time.monotonic() > self.deadline:
            raise DeadlineExceeded

    @contextlib.contextmanager
    def restart(self, *options, port):
        """Run the program again, and yield a ServerUnderTest. port: see running_server."""
        with running_server(self.program, *options, port=port, timeout=self.timeout) as server:
            yield replace(self, server=server)

    def connect(self, receive_buffer=None):
        """Return a connected ProbeClient. receive_buffer: bytes, instead of the kernel's choice."""
        self.check_deadline()
        client = ProbeClient(self.quiet_period, self.check_deadline)
        try:
            if receive_buffer:  # before it connects: the handshake announces it
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            client.settimeout(self.timeout)
            client.connect(self.address)
        except OSError:
            client.close()
            raise
        return client

    def assert_serves_new_client(self):
        """Raise ContractViolation unless a new client is greeted."""
        try:
            with self.connect() as client:
                client.request(b"next, please")
        except (OSError, ContractViolation) as error:
            raise ContractViolation(f"a new client was not served: {error}") from error

    def is_concurrent(self):
        """Return True if a second client is greeted while the first one is connected."""
        with self.connect() as first:
            first.request(b"first")  # before the second one connects: the order is sure
            with self.connect() as second:
                second.sendall(b"second")
                return second.has_reply()

    def assert_still_serving(self, concurrent):
        """Raise ContractViolation unless new clients are greeted next to the connected ones.

        concurrent: what is_concurrent() returned before; if False, nothing is checked.
        """
        for _ in range(3 if concurrent else 0):
            self.assert_serves_new_client()

    @contextlib.contextmanager
    def sigstopped(self):
        """Stop the server's processes while the block runs: only its kernel goes on."""
        stopped = self.processes()
        try:
            for process in stopped:
                process.suspend()
            self.wait_until(
                lambda: all(all_stopped(process.pid) for process in stopped),
                "a server stopped by SIGSTOP",
            )
            yield
        finally:
            for process in stopped:
                process.resume()

    def wait_until(self, condition, description):
        """Wait until condition() is true; raise ContractViolation after the timeout."""
        deadline = time.monotonic() + self.timeout
        while not condition():
            self.check_deadline()
            if time.monotonic() > deadline:
                raise ContractViolation(f"not within {self.timeout} s: {description}")
            time.sleep(0.005)

    def assert_no_busy_loop(self, situation):
        """Raise ContractViolation if the server uses more than a tenth of a core.

        situation: why it has nothing to do, for the message.
        """
        before = self.cpu_seconds()
        time.sleep(self.quiet_period)
        used = self.cpu_seconds() - before
        if used > self.quiet_period / 10:
            raise ContractViolation(
                f"{used:.2f} s of CPU time in {self.quiet_period} s although {situation}"
            )

    def baseline_descriptors(self):
        """Return how many descriptors are open when no client is connected."""
        with self.connect() as client:
            client.request(b"open all that you need for yourself")
            before, now = None, self.descriptors()
            while before != now:  # another of its processes may still be starting
                self.check_deadline()
                time.sleep(0.05)
                before, now = now, self.descriptors()
            return now - 1

    def wait_for_descriptors(self, limit):
        """Wait until at most limit descriptors are open."""
        self.wait_until(lambda: self.descriptors() <= limit, f"back at {limit} open descriptors")

    # What it uses. Some models fork, so all of its processes count.

    def processes(self):
        """Return the server's process and all that it has started."""
        return process_tree(self.process)

    def cpu_seconds(self):
        """Return the seconds of CPU time used so far (to 0.01 s)."""
        return self._sum(lambda process: sum(process.cpu_times()[:2]))

    def descriptors(self):
        """Return how many descriptors are open."""
        return self._sum(psutil.Process.num_fds)

    def threads(self):
        """Return how many threads there are."""
        return self._sum(psutil.Process.num_threads)

    def memory(self):
        """Return the bytes of its private memory, without what processes share."""
        return self._sum(lambda process: process.memory_full_info().uss)

    def _sum(self, measure):
        return sum_over_tree(self.process, measure)
