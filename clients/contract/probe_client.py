"""A client that knows what the server owes it."""

import contextlib
import functools
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from clients.client import PREFIX
from clients.contract.errors import ContractViolation, difference, expect, explaining
from clients.system.sockets import reset_on_close

MEBIBYTE = 2**20


@functools.cache
def numbers():
    """Return a mebibyte of numbers, each of them once."""
    return b"".join(b"%07d " % number for number in range(MEBIBYTE // 8))


class ProbeClient(socket.socket):
    """A socket that a ServerUnderTest has connected, with what a check does to it."""

    def __init__(self, server):
        super().__init__()
        self.server = server

    def request(self, message):
        """Send message and expect its greeting."""
        with explaining(f"sending {message!r:.100}: "):
            self.sendall(message)
        self.expect_greeting(message)

    def expect_greeting(self, message):
        """Expect the greeting of a message that has been sent."""
        expected = PREFIX + message
        with explaining(f"sent {message!r:.100}, "):
            received = self.read(len(expected))
            end = " and the end of the stream" if len(received) < len(expected) else ""
            if received != expected:
                raise ContractViolation(difference(expected, received) + end)

    def expect_eof(self):
        """Expect that the server closes its side, and sends nothing before."""
        with explaining("expected the server to close the connection, "):
            received = self.recv(1)
            expect(not received, f"received {received!r}")

    def read(self, size):
        """Return the next size bytes, or fewer if the stream ends before."""
        received, began = bytearray(), time.monotonic()
        while len(received) < size:
            self.server.check_deadline()
            with explaining(
                f"expected {size} bytes, received {len(received)} ({bytes(received[:50])!r}): "
            ):
                chunk = self.recv(min(65536, size - len(received)))
            if not chunk:
                break
            received += chunk
        self.server.read_times.append(time.monotonic() - began)
        return bytes(received)

    def read_to_eof(self, sent, received=b""):
        """Return received and all that follows until the stream ends, in reply to sent.

        Of an endless stream, one byte more than the longest reply: with each byte greeted alone.
        """
        return received + self.read(len(sent) * (len(PREFIX) + 1) + 1 - len(received))

    def has_reply(self, timeout=None):
        """Return True if there is something to read within timeout seconds (the quiet period)."""
        timeout = self.server.quiet_period if timeout is None else timeout
        return self._is_ready(select.POLLIN, timeout)

    def _is_ready(self, event, timeout):
        poll = select.poll()  # select() takes no descriptor above 1,023
        poll.register(self, event)
        return bool(poll.poll(timeout * 1000))

    def flood(self, limit):
        """Send limit bytes, or until none is taken for half a quiet period; return them."""
        sent = 0
        while sent < limit and self._is_ready(select.POLLOUT, self.server.quiet_period / 2):
            self.server.check_deadline()
            start = sent % MEBIBYTE
            sent += self.send(numbers()[start : start + limit - sent])  # what the send buffer takes
        return (numbers() * (1 + sent // MEBIBYTE))[:sent]

    @contextlib.contextmanager
    def flood_in_background(self, limit):
        """While the block runs, send up to limit bytes and read the replies, without a pause.

        Yields a function that returns how many bytes of replies have come.
        """
        bytes_received = 0

        def send():
            with contextlib.suppress(OSError):
                for _ in range(0, limit, 65536):
                    self.sendall(bytes(65536))

        def receive():
            nonlocal bytes_received
            with contextlib.suppress(OSError):
                while chunk := self.recv(MEBIBYTE):
                    bytes_received += len(chunk)

        with ThreadPoolExecutor(2) as pool:
            pool.submit(send)
            pool.submit(receive)
            try:
                yield lambda: bytes_received
            finally:  # wake a thread blocked in sendall() or recv()
                with contextlib.suppress(OSError):  # ENOTCONN: the server has reset the connection
                    self.shutdown(socket.SHUT_RDWR)

    def half_close(self):
        """Close the sending direction; receiving goes on."""
        self.shutdown(socket.SHUT_WR)

    def reset(self):
        """Close with a reset (RST)."""
        reset_on_close(self)
        self.close()
