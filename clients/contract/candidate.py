"""A server that is held to a claim, and all that a claim can do with it."""

import socket
import time
from dataclasses import dataclass

from clients.contract.guest import Guest
from clients.contract.terms import Broken
from clients.contract.usage import descriptors, spent
from clients.system.launch import Server

PATIENCE = 20.0
A_WHILE = 1.0


@dataclass
class Candidate(Server):
    """A running server, as launch.Server, with the tools of the claims.

    patience: seconds within which what must happen has to happen. a_while: seconds for which
    something must not happen.
    """

    patience: float = PATIENCE
    a_while: float = A_WHILE

    def guest(self, receive_buffer=None):
        """Return a new client, connected. receive_buffer: bytes, instead of the kernel's choice."""
        guest = Guest(self.a_while)
        try:
            if receive_buffer:  # what the kernel promises the other side at once, so it comes first
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

    def welcomes(self):
        """Say whether a new client is greeted."""
        try:
            self.visit()
        except Broken:
            return False
        return True

    def serves_together(self):
        """Say whether a second client is greeted while the first one is still there."""
        with self.guest() as first, self.guest() as second:
            first.say(b"first")
            second.sendall(b"second")
            return second.is_answered()

    def serves_others(self, together):
        """Expect that newcomers are greeted while somebody is there, if the model serves together.

        together: what serves_together() said before.
        """
        for _ in range(3 if together else 0):
            self.visit()

    def eventually(self, condition, what):
        """Wait until condition() holds. what: words for the message if it never does."""
        deadline = time.monotonic() + self.patience
        while not condition():
            if time.monotonic() > deadline:
                raise Broken(f"not within {self.patience} s: {what}")
            time.sleep(0.005)

    def calm(self, what):
        """Expect next to no use of CPU time for a while. what: words for why there is no need."""
        before = spent(self)
        time.sleep(self.a_while)
        used = spent(self) - before
        if used > self.a_while / 10:
            raise Broken(f"{used:.2f} s of CPU time in {self.a_while} s although {what}")

    def descriptors_at_rest(self):
        """Return how many descriptors are open when no client is there."""
        with self.guest() as guest:
            guest.say(b"you have opened all that you need for yourself")
            return descriptors(self) - 1

    def settle(self, most):
        """Wait until no more than so many descriptors are open."""
        self.eventually(lambda: descriptors(self) <= most, f"back at {most} open descriptors")
