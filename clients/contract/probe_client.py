"""A client that knows what the server owes it."""

import contextlib
import select
import socket
import threading

from clients.client import PREFIX
from clients.contract.errors import Broken
from clients.system.sockets import reset_on_close

MEBIBYTE = 2**20


class Guest(socket.socket):
    """A socket that is connected to the server, and what a claim does with it.

    a_while: seconds in which a server that takes something would have taken it. in_time: called
    again and again; it raises OutOfTime when this has taken too long.
    """

    def __init__(self, a_while, in_time):
        super().__init__()
        self.a_while, self.in_time = a_while, in_time

    def say(self, message):
        """Send message and expect the greeting."""
        try:
            self.sendall(message)
        except OSError as error:
            raise Broken(f"sending {message!r:.200}: {error}") from error
        self.expect_greeting(message)

    def expect_greeting(self, message):
        """Expect the greeting of a message that has been sent."""
        expected = PREFIX + message
        received = self.read(len(expected))
        if received != expected:
            raise Broken(
                f"sent {message!r:.200}, expected {expected!r:.200}, received {received!r:.200}"
            )

    def expect_the_end(self):
        """Expect that the server closes its side, and says nothing before."""
        wanted = "expected the server to close the connection"
        try:
            received = self.recv(1)
        except OSError as error:
            raise Broken(f"{wanted}: {error}") from error
        if received:
            raise Broken(f"{wanted}, received {received!r}")

    def read(self, size):
        """Return the next size bytes, or fewer where the stream ends before."""
        received = bytearray()
        while len(received) < size:
            self.in_time()
            try:
                chunk = self.recv(min(65536, size - len(received)))
            except OSError as error:
                got = f"{len(received)} ({bytes(received)!r:.100})"
                wanted = f"{size} bytes or the end"
                raise Broken(f"expected {wanted}, received {got}: {error}") from error
            if not chunk:
                break
            received += chunk
        return bytes(received)

    def read_to_the_end(self, sent, received=b""):
        """Return received and all that follows until the stream ends, in answer to sent.

        An answer is at most eight times as long as what was sent, with each byte greeted alone;
        no more than one byte beyond that is read from a server that does not end.
        """
        return received + self.read(len(sent) * (len(PREFIX) + 1) + 1 - len(received))

    def is_answered(self, seconds=None):
        """Say whether there is something to read, or will be within so many seconds (a while)."""
        return self._is_ready(select.POLLIN, self.a_while if seconds is None else seconds)

    def _is_ready(self, event, seconds):
        poll = select.poll()  # select() takes no descriptor above 1,023
        poll.register(self, event)
        return bool(poll.poll(seconds * 1000))

    def flood(self, most):
        """Send up to most bytes, read nothing, and return what was sent.

        It ends before when nothing could be sent for a while.
        """
        numbers = b"".join(b"%07d " % number for number in range(MEBIBYTE // 8))
        sent = 0
        while sent < most and self._is_ready(select.POLLOUT, self.a_while):
            self.in_time()
            at = sent % MEBIBYTE
            sent += self.send(numbers[at : at + most - sent])  # as much as there is room for
        return (numbers * (1 + sent // MEBIBYTE))[:sent]

    @contextlib.contextmanager
    def greedy(self, most):
        """While the block lasts, ask for up to most bytes and read the answers, without a pause.

        Yields a function that returns how many bytes of answers have come.
        """
        answered = 0

        def ask():
            with contextlib.suppress(OSError):
                for _ in range(0, most, 65536):
                    self.sendall(bytes(65536))

        def read():
            nonlocal answered
            with contextlib.suppress(OSError):
                while chunk := self.recv(MEBIBYTE):
                    answered += len(chunk)

        threads = [threading.Thread(target=work) for work in (ask, read)]
        try:
            for thread in threads:
                thread.start()
            yield lambda: answered
        finally:
            with contextlib.suppress(OSError):  # ENOTCONN: the server has broken off
                self.shutdown(socket.SHUT_RDWR)  # this wakes who waits in sendall() or recv()
            for thread in threads:
                thread.join()

    def half_close(self):
        """Say no more, but go on listening."""
        self.shutdown(socket.SHUT_WR)

    def reset(self):
        """Break off (RST) instead of the four steps of a normal close."""
        reset_on_close(self)
        self.close()
