"""Run checks against a server program: as a ServerUnderTest, with all that a check needs of it."""

import contextlib
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partialmethod
from statistics import median
from typing import Literal

import psutil

from clients.client import LONGEST, PREFIX
from clients.contract.errors import (
    DEADLINE_FACTOR,
    ContractViolation,
    DeadlineExceeded,
    NotApplicable,
    expect,
    expect_equal,
    explaining,
    last_exception,
)
from clients.contract.probe_client import ProbeClient
from clients.system import processes
from clients.system.procfs import all_stopped, switches, tcp_sockets

TIMEOUT = 20.0
QUIET_PERIOD = 1.0
PAUSE = 11  # quiet periods: many programs have a timeout of 10 s
SEGMENT = LONGEST + len(PREFIX) + 12  # bytes: a whole greeting, and TCP's timestamps
WAKEUPS = 100  # per second: an idle server wakes rarely
CRASHED = "the server crashed: "
JOBS = 6  # servers that run at a time: most of a check is waiting


@dataclass(frozen=True)
class CheckResult:
    """How a server did in a check."""

    check: str  # the name of its function
    outcome: Literal["passed", "failed", "not applicable"]
    reason: str = ""  # empty if it passed


def run_checks(program, checks, *options, **limits):
    """Run checks against a server program; yield the CheckResult of each, in order.

    Checks with the same options share a server, but for those that leave it changed. limits: see
    run_check.
    """
    groups, results = {}, {check: Future() for check in checks}
    for check in results:
        groups.setdefault(check if check.alone else check.options, []).append(check)

    def run(group):
        todo = iter(group)
        try:
            for result in run_in_turn(program, group, *options, **limits):
                results[next(todo)].set_result(result)
        except Exception as error:
            for check in todo:
                results[check].set_exception(error)

    with ThreadPoolExecutor(JOBS) as pool:
        pool.map(run, groups.values())
        for result in results.values():
            yield result.result()


def run_check(program, check, *options, **limits):
    """Start program with the options of the check, and these; return the CheckResult.

    limits: timeout, quiet_period, load; see ServerUnderTest.
    """
    (result,) = run_in_turn(program, [check], *options, **limits)
    return result


def run_in_turn(program, checks, *options, timeout=TIMEOUT, **limits):
    """Yield the CheckResult of each check; they have the same options, and share a server.

    A check that fails on a used server is run again, and from then on each gets a new one.
    """
    options, todo, share = (*checks[0].options, *options), list(checks), True
    while todo:
        is_new = True
        try:
            with processes.running_server(
                program, *options, timeout=timeout, grace=timeout / 4
            ) as running:
                while todo and (share or is_new):
                    server = ServerUnderTest(running, timeout, options=options, **limits)
                    result = server.result_of(todo[0])
                    share &= result.outcome != "failed"
                    if not share and not is_new:
                        break
                    is_new = False
                    del todo[0]
                    yield result
        except processes.LaunchError as error:
            yield CheckResult(todo.pop(0).__name__, "failed", str(error))


@dataclass
class ServerUnderTest:
    """A running server, with the tools of the checks; it has the attributes of Server, too."""

    server: processes.Server
    timeout: float = TIMEOUT  # seconds within which an expected event has to happen
    quiet_period: float = QUIET_PERIOD  # seconds in which something must not happen
    load: float = 1.0  # share of the connections or messages of checks that repeat something
    deadline: float = float("inf")  # of the check (time.monotonic)
    options: tuple = ()  # with which the server was started
    read_times: list[float] = field(default_factory=list)  # seconds of each read by a client

    def __post_init__(self):
        self.log_start = len(self.server.log())  # what other checks have caused comes before

    def __getattr__(self, name):
        return getattr(self.server, name)

    def log(self):
        """Return what the server has written to standard error during this check."""
        return self.server.log()[self.log_start :]

    def result_of(self, check):
        """Run a check; return its CheckResult."""
        limit = DEADLINE_FACTOR * (self.timeout + self.quiet_period)
        self.deadline = time.monotonic() + limit
        try:
            check(self)
            if "--quiet" in self.options and not check.alone:
                expect_equal("an exception in the log", "", last_exception(self.log()))
            return CheckResult(check.__name__, "passed")
        except (psutil.AccessDenied, PermissionError) as error:
            reason = (
                f"the server belongs to another user ({error}): start this command as that user"
            )
            return CheckResult(check.__name__, "not applicable", reason)
        except NotApplicable as error:
            return CheckResult(check.__name__, "not applicable", str(error))
        except DeadlineExceeded:
            reason = f"not done within {limit:g} s: {self.slowness()}"
        except psutil.Error as error:
            reason = self.explain(f"the server has ended: {error}")
        except (ContractViolation, OSError) as error:
            reason = self.explain(str(error))
        return CheckResult(check.__name__, "failed", reason)

    def explain(self, reason):
        """Return why a check failed: reason, and an exception in the log that explains it."""
        with contextlib.suppress(psutil.TimeoutExpired):
            self.process.wait(self.quiet_period / 2)
        exception = last_exception(self.log())
        if not exception or exception in reason:
            return reason
        if self.process.poll():  # an exit status that is not 0
            return CRASHED + exception
        return f"{reason}. The last exception in its log: {exception}"

    def slowness(self):
        """Return what has been slow."""
        ms = 1000 * median(self.read_times or [0])
        nagle = "; 40 ms is a delayed ACK: is one reply sent with two send() calls (Nagle)?"
        slow = f"{len(self.read_times)} replies took {ms:.0f} ms each (median)"
        return slow + (nagle if 35 < ms < 60 else "")

    def check_deadline(self):
        """Raise DeadlineExceeded if the check has reached its deadline; called in every loop."""
        if time.monotonic() > self.deadline:
            raise DeadlineExceeded

    @contextlib.contextmanager
    def restart(self, *options, port=0):
        """Run the program again, and yield a ServerUnderTest. port: see running_server."""
        with processes.running_server(
            self.program, *options, port=port, timeout=self.timeout
        ) as server:
            yield replace(self, server=server, options=options)

    def fastest_of_three_starts(self, measure):
        """Return the least seconds that measure(server) returns: a busy machine is slow once."""
        seconds = measure(self)
        for _ in range(2 if seconds >= 1 else 0):
            with self.restart(*self.options) as again:
                seconds = min(seconds, measure(again))
        return seconds

    def connect(self, small_buffers=False):
        """Return a connected ProbeClient. small_buffers: some KiB in the kernel, not some MiB."""
        self.check_deadline()
        client = ProbeClient(self)
        if small_buffers:  # before it connects: the handshake announces both
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            # Both ends then have room for some segments in their send buffers. Each is as long as
            # the greeting of a whole chunk: the room ends between two of them, and not only within.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        client.settimeout(self.timeout)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.ExitStack() as stack:
            stack.enter_context(client)  # closed if it cannot connect
            with explaining("a connection failed"):
                client.connect(self.address)
            stack.pop_all()
        return client

    def assert_serves_new_client(self):
        """Raise ContractViolation unless a new client is greeted."""
        with explaining("a new client was not served"), self.connect() as client:
            client.request(b"next, please")

    def served_together(self, most):
        """Return how many clients, at most most, are greeted while all of them are connected."""
        with contextlib.ExitStack() as stack:
            for number in range(most):
                client = stack.enter_context(self.connect())
                client.sendall(b"and am I served, too?")
                if not client.has_reply():
                    return max(number, 1)
        return most

    def is_concurrent(self):
        """Return True if a second client is greeted while the first one is connected."""
        return self.served_together(2) == 2

    @contextlib.contextmanager
    def serving_others(self):
        """Expect that after the block a new client is greeted.

        Yields a function that expects it within the block, if the server is_concurrent().
        """
        count = 3 if self.is_concurrent() else 0
        yield lambda: [self.assert_serves_new_client() for _ in range(count)]
        self.assert_serves_new_client()

    @contextlib.contextmanager
    def sigstopped(self):
        """Stop the server's processes while the block runs: only its kernel goes on."""
        with contextlib.ExitStack() as stack:
            for process in (stopped := self.processes()):
                stack.callback(process.resume)
                process.suspend()
            pids = [process.pid for process in stopped]
            self.wait_until(lambda: all(map(all_stopped, pids)), "a server stopped by SIGSTOP")
            yield

    def wait_until(self, condition, description):
        """Return condition() as soon as it is true; raise ContractViolation after the timeout."""
        began = time.monotonic()
        while not (result := condition()):
            self.check_deadline()
            waited = time.monotonic() - began
            expect(waited < self.timeout, f"not within {self.timeout} s: {description}")
            time.sleep(0.002 + waited / 10)
        return result

    def assert_no_busy_loop(self, situation, long=False):
        """Raise ContractViolation if the server uses a tenth of a core, or wakes too often.

        situation: why it has nothing to do, for the message. long: longer than usual timeouts.
        """
        seconds = self.quiet_period * (max(4, PAUSE * self.load) if long else 1)
        self.deadline += seconds
        cpu_seconds, wakeups = self.cpu_seconds(), self.wakeups()
        although = f"in {seconds:g} s although {situation}"
        for _ in range(8):  # a busy loop is found long before the end
            time.sleep(seconds / 8)
            used = self.cpu_seconds() - cpu_seconds
            expect(used <= seconds / 10, f"{used:.2f} s of CPU time {although}")
        wakeups = self.wakeups() - wakeups
        expect(wakeups <= WAKEUPS * seconds, f"it woke {wakeups} times {although}")

    def baseline_descriptors(self):
        """Return how many descriptors are open when no client is connected."""
        with self.connect() as client:
            client.request(b"open all that you need for yourself")
            before, now = None, self.descriptors()
            while before != now:  # another of its processes may still be starting
                self.check_deadline()
                time.sleep(0.05)
                before, now = now, self.descriptors()
            client.request(b"and keep this connection")  # or the count is wrong
            return now - 1

    def accept_queues(self):
        """Return the length of the accept queue of each of its listening sockets."""
        address = socket.gethostbyname(self.address[0]), self.address[1]
        listeners = [line for line in tcp_sockets(address[1]) if line.state == "LISTEN"]
        return [line.recv_q for line in listeners if line.local == address]

    def has_unread(self, client):
        """Return True if the server has not yet read all that client has sent."""
        lines, name = tcp_sockets(self.address[1]), client.getsockname()
        return any(line.recv_q for line in lines if line.remote == name)

    def wait_for_descriptors(self, limit):
        """Wait until at most limit descriptors are open."""
        self.wait_until(lambda: self.descriptors() <= limit, f"back at {limit} open descriptors")

    def processes(self):
        """Return the server's process and all that it has started; none if all have ended."""
        return processes.running_tree(self.process)

    def _sum(self, measure):
        return processes.sum_over_tree(self.process, measure)

    # What its processes use in all.
    descriptors = partialmethod(_sum, psutil.Process.num_fds)
    threads = partialmethod(_sum, psutil.Process.num_threads)
    cpu_seconds = partialmethod(_sum, lambda process: processes.cpu_seconds(process))
    memory = partialmethod(_sum, lambda process: process.memory_full_info().uss)  # private bytes
    wakeups = partialmethod(_sum, lambda process: switches(process.pid, True))
