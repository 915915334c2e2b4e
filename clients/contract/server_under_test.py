"""Run a check against a server program: as a ServerUnderTest, with all that a check needs of it."""

import contextlib
import socket
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Literal

import psutil

from clients.contract.errors import (
    DEADLINE_FACTOR,
    ContractViolation,
    DeadlineExceeded,
    NotApplicable,
    last_exception,
)
from clients.contract.probe_client import ProbeClient
from clients.system.processes import (
    LaunchError,
    Server,
    process_tree,
    running_server,
    sum_over_tree,
)
from clients.system.procfs import all_stopped, tcp_sockets

TIMEOUT = 20.0
QUIET_PERIOD = 1.0
WAKEUPS = 100  # per second: an idle server wakes rarely
CRASHED = "the server crashed: "


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
    """Raise ContractViolation or NotApplicable, as the check does."""
    limit = DEADLINE_FACTOR * (timeout + quiet_period)
    limits = {"timeout": timeout, "grace": timeout / 4}
    try:
        with running_server(program, *check.options, *options, **limits) as running:
            server = ServerUnderTest(running, timeout, quiet_period, time.monotonic() + limit)
            server.options = (*check.options, *options)
            try:
                check(server)
            except DeadlineExceeded as error:
                slow = _slowness(server.read_times)
                raise ContractViolation(
                    f"the check was not done after {limit:g} s, its deadline: {slow}"
                ) from error
            except psutil.AccessDenied as error:  # a set-user-ID program, for example
                raise NotApplicable(f"this machine does not allow it: {error}") from error
            except (ContractViolation, OSError, psutil.Error) as error:
                raise ContractViolation(_explained(error, running, quiet_period / 2)) from error
    except LaunchError as error:
        raise ContractViolation(str(error)) from error


def _explained(error, running, seconds):
    """Return what went wrong; an exception in the log, within some seconds, explains the rest."""
    reason = str(error)
    if isinstance(error, psutil.Error):
        reason = f"the server has ended: {error}"
    elif isinstance(error, OSError):  # a check expects every connection to succeed
        reason = f"a connection failed: {error}"
    with contextlib.suppress(psutil.TimeoutExpired):
        running.process.wait(seconds)
    exception = last_exception(running.log())
    if not exception or exception in reason:
        return reason
    if running.process.poll() is not None:
        return CRASHED + exception
    return f"{reason}. The last exception in its log: {exception}"


def _slowness(read_times):
    """Return what was slow in a check that has reached its deadline."""
    if not read_times:
        return "not a single reply was read"
    latency = mean(read_times)
    slow = f"{len(read_times)} replies took {latency * 1000:.0f} ms on average"
    if 0.035 < latency < 0.06:
        slow += " (is one reply sent with two send() calls? The second one then waits for a delayed"
        slow += " ACK of 40 ms: Nagle's algorithm)"
    return slow


@dataclass
class ServerUnderTest:
    """A running server, with the tools of the checks."""

    server: Server
    timeout: float = TIMEOUT  # seconds within which an expected event has to happen
    quiet_period: float = QUIET_PERIOD  # seconds in which something must not happen
    deadline: float = float("inf")  # of the check (time.monotonic)
    options: tuple = ()  # with which the server was started
    read_times: list[float] = field(default_factory=list)  # seconds of each read by a client

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
    def restart(self, *options, port=0):
        """Run the program again, and yield a ServerUnderTest. port: see running_server."""
        with running_server(self.program, *options, port=port, timeout=self.timeout) as server:
            yield replace(self, server=server, options=options)

    def connect(self, receive_buffer=None):
        """Return a connected ProbeClient. receive_buffer: bytes, instead of the kernel's choice."""
        self.check_deadline()
        client = ProbeClient(self)
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

    def assert_no_busy_loop(self, situation, periods=1):
        """Raise ContractViolation if the server uses a tenth of a core, or wakes too often.

        situation: why it has nothing to do, for the message. periods: how many quiet periods.
        """
        seconds = periods * self.quiet_period
        cpu_seconds, wakeups = self.cpu_seconds(), self.wakeups()
        time.sleep(seconds)
        if (used := self.cpu_seconds() - cpu_seconds) > seconds / 10:
            raise ContractViolation(f"{used:.2f} s of CPU time in {seconds} s although {situation}")
        if (count := self.wakeups() - wakeups) > WAKEUPS * seconds:
            raise ContractViolation(f"it woke {count} times in {seconds} s although {situation}")

    def baseline_descriptors(self):
        """Return how many descriptors are open when no client is connected.

        Raises ContractViolation if the server does not keep the connection that this needs.
        """
        with self.connect() as client:
            client.request(b"open all that you need for yourself")
            before, now = None, self.descriptors()
            while before != now:  # another of its processes may still be starting
                self.check_deadline()
                time.sleep(0.05)
                before, now = now, self.descriptors()
            client.request(b"and keep this connection")
            return now - 1

    def accept_queues(self):
        """Return the length of the accept queue of each of its listening sockets."""
        address = socket.gethostbyname(self.address[0]), self.address[1]
        return [
            line.recv_q
            for line in tcp_sockets(address[1])
            if (line.state, line.local) == ("LISTEN", address)
        ]

    def has_unread(self, client):
        """Return True if the server has not yet read all that client has sent."""
        ends = client.getpeername(), client.getsockname()
        return any(
            line.recv_q for line in tcp_sockets(ends[0][1]) if (line.local, line.remote) == ends
        )

    def wait_for_accept_queue(self):
        """Wait until it has accepted all connections."""
        self.wait_until(lambda: not any(self.accept_queues()), "an empty accept queue")

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

    def wakeups(self):
        """Return how many times its threads have been blocked so far (proc_pid_status(5))."""
        return self._sum(lambda process: sum(map(_switches, _tasks(process.pid))))

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


def _tasks(pid):
    return Path(f"/proc/{pid}/task").iterdir()


def _switches(task):
    with contextlib.suppress(OSError):  # the thread has just ended
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                return int(line.split()[1])
    return 0
