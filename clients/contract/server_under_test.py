"""Hold a server program to a claim: as a Candidate, with all that a claim can ask of it."""

import contextlib
import socket
import time
from dataclasses import dataclass, replace

import psutil

from clients.contract.errors import LIMIT, Broken, NotApplicable, OutOfTime
from clients.contract.probe_client import Guest
from clients.system.processes import (
    LaunchError,
    Server,
    process_tree,
    running_server,
    sum_over_tree,
)
from clients.system.procfs import all_stopped

PATIENCE = 20.0
A_WHILE = 1.0


def judge(program, claim, *options, **limits):
    """Hold program to the claim; return "held", "broken" or "not applicable", and why ("": held).

    options, limits: see hold.
    """
    try:
        hold(program, claim, *options, **limits)
    except Broken as error:
        return "broken", str(error)
    except NotApplicable as reason:
        return "not applicable", str(reason)
    return "held", ""


def hold(program, claim, *options, patience=PATIENCE, a_while=A_WHILE):
    """Start program as the claim wants it, with more options if any, and hold it to the claim.

    patience, a_while: see Candidate. Raises Broken or NotApplicable, as the claim does; Broken,
    too, when it has taken LIMIT * (patience + a_while) seconds and would go on.
    """
    most = LIMIT * (patience + a_while)
    limits = {"patience": patience, "grace": patience / 4}
    try:
        with running_server(program, *claim.options, *options, **limits) as server:
            until = time.monotonic() + most
            claim(Candidate(**vars(server), patience=patience, a_while=a_while, until=until))
    except OutOfTime as error:
        raise Broken(
            f"not done within {most:g} s, the bound of a claim, and would have gone on: does each "
            "greeting take long?"
        ) from error
    except LaunchError as error:
        raise Broken(str(error)) from error
    except OSError as error:  # the claim expects every connection to succeed
        raise Broken(f"a connection failed: {error}") from error
    except psutil.AccessDenied as error:  # of another user, say, since it is set-user-ID
        raise NotApplicable(f"this machine does not allow it: {error}") from error
    except psutil.Error as error:
        raise Broken(f"the server has ended: {error}") from error


@dataclass
class Candidate(Server):
    """A running server, as processes.Server, with the tools of the claims.

    patience: seconds within which what must happen has to happen. a_while: seconds for which
    something must not happen. until: when the claim meets its bound (time.monotonic).
    """

    patience: float = PATIENCE
    a_while: float = A_WHILE
    until: float = float("inf")

    def in_time(self):
        """Raise OutOfTime if the claim has met its bound; all that a claim repeats asks this."""
        if time.monotonic() > self.until:
            raise OutOfTime

    @contextlib.contextmanager
    def again(self, *options, port):
        """Run the program once more and yield that Candidate. port: see running_server."""
        with running_server(self.program, *options, port=port, patience=self.patience) as server:
            yield replace(self, **vars(server))

    def guest(self, receive_buffer=None):
        """Return a new client, connected. receive_buffer: bytes, instead of the kernel's choice."""
        self.in_time()
        guest = Guest(self.a_while, self.in_time)
        try:
            if receive_buffer:  # before it connects: the handshake tells the other side
                guest.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            guest.settimeout(self.patience)
            guest.connect(self.address)
        except OSError:
            guest.close()
            raise
        return guest

    def visit(self):
        """Expect that a new client is greeted."""
        try:
            with self.guest() as guest:
                guest.say(b"next, please")
        except (OSError, Broken) as error:
            raise Broken(f"a new client was not served: {error}") from error

    def serves_together(self):
        """Say whether a second client is greeted while the first one is still there."""
        with self.guest() as first:
            first.say(b"first")  # greeted before the second one comes: no two newcomers at once
            with self.guest() as second:
                second.sendall(b"second")
                return second.is_answered()

    def serves_others(self, together):
        """Expect that newcomers are greeted while somebody is there, if the model serves together.

        together: what serves_together() said before.
        """
        for _ in range(3 if together else 0):
            self.visit()

    @contextlib.contextmanager
    def frozen(self):
        """Stop the server while the block lasts: its kernel goes on, and it accepts nobody."""
        stopped = self.processes()
        try:
            for process in stopped:
                process.suspend()
            self.eventually(
                lambda: all(all_stopped(process.pid) for process in stopped),
                "a server stopped by SIGSTOP",
            )
            yield
        finally:
            for process in stopped:
                process.resume()

    def eventually(self, condition, what):
        """Wait until condition() holds. what: words for the message if it never does."""
        deadline = time.monotonic() + self.patience
        while not condition():
            self.in_time()
            if time.monotonic() > deadline:
                raise Broken(f"not within {self.patience} s: {what}")
            time.sleep(0.005)

    def calm(self, what):
        """Expect next to no use of CPU time for a while. what: words for why there is no need."""
        before = self.spent()
        time.sleep(self.a_while)
        used = self.spent() - before
        if used > self.a_while / 10:
            raise Broken(f"{used:.2f} s of CPU time in {self.a_while} s although {what}")

    def descriptors_at_rest(self):
        """Return how many descriptors are open when no client is there."""
        with self.guest() as guest:
            guest.say(b"you have opened all that you need for yourself")
            before, now = None, self.descriptors()
            while before != now:  # another of its processes may still be starting
                self.in_time()
                time.sleep(0.05)
                before, now = now, self.descriptors()
            return now - 1

    def settle(self, most):
        """Wait until no more than so many descriptors are open."""
        self.eventually(lambda: self.descriptors() <= most, f"back at {most} open descriptors")

    # What it uses. Some models fork, so all of its processes count.

    def processes(self):
        """Return the server's process and all that it has started."""
        return process_tree(self.process)

    def spent(self):
        """Return the seconds of CPU time used so far (to 0.01 s)."""
        return sum_over_tree(self.process, lambda process: sum(process.cpu_times()[:2]))

    def descriptors(self):
        """Return how many descriptors are open."""
        return sum_over_tree(self.process, psutil.Process.num_fds)

    def threads(self):
        """Return how many threads there are."""
        return sum_over_tree(self.process, psutil.Process.num_threads)

    def memory(self):
        """Return the bytes of memory that it has for itself, without what processes share."""
        return sum_over_tree(self.process, lambda process: process.memory_full_info().uss)
