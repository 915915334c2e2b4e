"""A client that knows what the server owes it."""

import select
import socket
import time
from random import Random

from clients.client import PREFIX
from clients.contract.errors import ContractViolation, difference, expect, explaining
from clients.system.sockets import reset_on_close

MEBIBYTE = 2**20
NOISE = Random(0).randbytes(MEBIBYTE)


def noise(start, end):
    """Return a part of an endless text in which every missing or repeated piece shows."""
    start, end = start % MEBIBYTE, end - start + start % MEBIBYTE
    return (NOISE * (1 + end // MEBIBYTE))[start:end]


class ProbeClient(socket.socket):
    """A socket that a ServerUnderTest has connected, with what a check does to it."""

    def __init__(self, server):
        super().__init__()
        self.server = server

    def request(self, message):
        """Send message and expect its greeting."""
        with explaining("sending ", message):
            self.sendall(message)
        self.expect_greeting(message)

    def expect_greeting(self, message):
        """Expect the greeting of a message that has been sent."""
        expected = PREFIX + message
        with explaining("sent ", message):
            received = self.read(len(expected))
            end = " and end of file" if len(received) < len(expected) else ""
            if received != expected:
                raise ContractViolation(difference(expected, received) + end)

    def expect_eof(self):
        """Expect that the server closes its side, and sends nothing before."""
        with explaining("expected the server to close the connection"):
            received = self.recv(1)
            expect(not received, f"received {received!r}")

    def read(self, size):
        """Return the next size bytes, or fewer if the stream ends before."""
        received, began = bytearray(), time.monotonic()
        try:
            while len(received) < size and (chunk := self.recv(min(65536, size - len(received)))):
                self.server.check_deadline()
                received += chunk
        except OSError as error:
            text = f"expected {size} bytes, received {len(received)} ({bytes(received[:50])!r}): "
            raise ContractViolation(f"{text}{error}") from error
        self.server.read_times.append(time.monotonic() - began)
        return bytes(received)

    def has_reply(self, timeout=None):
        """Return True if there is something to read within timeout seconds (the quiet period)."""
        timeout = self.server.quiet_period if timeout is None else timeout
        return self.is_ready(select.POLLIN, timeout)

    def is_ready(self, event, timeout):
        """Return True if poll() reports the event within timeout seconds."""
        poll = select.poll()  # select() takes no descriptor above 1,023
        poll.register(self, event)
        return bool(poll.poll(timeout * 1000))

    def flood(self, limit):
        """Send limit bytes, or until none is taken for half a quiet period; return them."""
        sent = 0
        while sent < limit and self.is_ready(select.POLLOUT, self.server.quiet_period / 2):
            self.server.check_deadline()
            sent += self.send(noise(sent, min(sent + 65536, limit)))  # what the send buffer takes
        return noise(0, sent)

    def half_close(self):
        """Close the sending direction; receiving goes on."""
        self.shutdown(socket.SHUT_WR)

    def finish(self):
        """Half-close, expect end of file, and close."""
        with self:
            self.half_close()
            self.expect_eof()

    def reset(self):
        """Close with a reset (RST)."""
        reset_on_close(self)
        self.close()
