"""One process that sends load to a greeting server; bench.py starts and commands it.

Its arguments are CORE HOST PORT FIRST: it runs on that processor core, and numbers its connections
from FIRST on. Commands come as pickles on standard input, methods of Generator: ("hold", count),
("hold", count, True), ("round", count, load, seconds). To each it writes a pickle (result, None) or
(None, error message). It ends with its standard input.

Both loads are closed loops: each answer is followed by the next request at once. The inner loops do
as little as Python can, or the generator would be slower than the server.
"""

import contextlib
import errno
import os
import pickle
import select
import socket
import sys
import time
from array import array

TIMEOUT = 10.0  # seconds without an answer after which the server counts as lost
MOST = 5_000_000  # requests, after which a round ends early
# Connections from one source address. It has 28,232 ports by default, see ip(7); once half are in
# use, connect() looks at 14,000 of them before it finds a free one (inet_hashtables.c).
SPREAD = 10_000
BIND_ADDRESS_NO_PORT = 24  # ip(7); Python 3.11 has no name for it


class WrongAnswer(Exception):
    """The server did not answer as it should."""


class Generator:
    """The connections to one server, and the requests on them."""

    def __init__(self, address, first):
        self.address, self.number = address, first
        self.sockets, self.epoll, self.busy = [], select.epoll(), {}  # busy: by descriptor

    def hold(self, count, idle=False):
        """Open count connections; each is greeted once, so the server has accepted it."""
        for _ in range(count):
            sock, message = self.connect()
            self.sockets.append(sock)
            expected = b"Hello, " + message
            check(sock, b"", expected)
            if not idle:
                self.epoll.register(sock, select.EPOLLIN)
                self.busy[sock.fileno()] = sock.recv, sock.send, message, expected, sock

    def connect(self):
        """Connect and send the first message; return the socket and the message."""
        self.number += 1
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        block = self.number // SPREAD
        sock.bind((f"127.0.{block // 250 % 250}.{1 + block % 250}", 0))
        error = sock.connect_ex(self.address)
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, os.strerror(error))
        message = b"I am client number %08d" % self.number
        try:  # over loopback the handshake is complete when connect() returns
            sock.send(message)
        except BlockingIOError:  # unless the accept queue is full
            wait(sock, select.POLLOUT)
            sock.send(message)
        return sock, message

    def round(self, count, load, seconds):
        """Load the server for some seconds; return latencies (ns), seconds, and our CPU seconds.

        load: "greet" on the busy connections, or "visit" by count visitors at a time.
        """
        latencies, cpu, began = array("q"), time.process_time_ns(), time.perf_counter_ns()
        until = began + int(seconds * 1e9)
        if load == "greet":
            self.greet(until, latencies)
        else:
            self.visit(count, until, latencies)
        elapsed, used = time.perf_counter_ns() - began, time.process_time_ns() - cpu
        return latencies, elapsed / 1e9, used / 1e9

    def greet(self, until, latencies):
        """Greet on all the busy connections."""
        poll, note, now, busy = self.epoll.poll, latencies.append, time.perf_counter_ns, self.busy
        sent_at, in_flight = {}, len(busy)
        for fd, (_, send, message, *_) in busy.items():
            sent_at[fd] = now()
            send(message)
        while in_flight:
            for fd, _ in poll(TIMEOUT) or silent():
                recv, send, message, expected, sock = busy[fd]
                answer = recv(2048)
                at = now()
                if answer != expected:
                    at = check(sock, answer, expected)
                note(at - sent_at[fd])
                if at < until:
                    sent_at[fd] = at
                    send(message)
                else:
                    in_flight -= 1
            until = until if len(latencies) < MOST else 0

    def visit(self, count, until, latencies):
        """Let count visitors at a time connect, be greeted once, half-close, and read the end."""
        epoll, table, in_flight = select.epoll(), {}, count
        for _ in range(count):
            self.enter(epoll, table)
        while in_flight:
            for fd, _ in epoll.poll(TIMEOUT) or silent():
                sock, entered, expected = table[fd]
                answer = sock.recv(2048)
                if answer != expected:
                    check(sock, answer, expected)
                if expected:
                    sock.shutdown(socket.SHUT_WR)
                    table[fd] = sock, entered, b""  # next, the server closes
                    continue
                at = time.perf_counter_ns()
                latencies.append(at - entered)
                sock.close()
                if at < until:
                    self.enter(epoll, table)
                else:
                    in_flight -= 1
            until = until if len(latencies) < MOST else 0

    def enter(self, epoll, table):
        """Start a visit: it waits for its greeting, and then for the server's close."""
        entered = time.perf_counter_ns()
        sock, message = self.connect()
        table[sock.fileno()] = sock, entered, b"Hello, " + message
        epoll.register(sock, select.EPOLLIN)


def check(sock, answer, expected):
    """Read the rest of an answer that came in parts; return the time. Raises WrongAnswer."""
    while len(answer) < len(expected) and expected.startswith(answer):
        wait(sock, select.POLLIN)
        part = sock.recv(2048)
        if not part:
            text = f"closed the connection after {answer!r}, before {expected!r} was complete"
            raise WrongAnswer(text)
        answer += part
    if answer != expected:
        raise WrongAnswer(f"answered {answer!r:.200} and not {expected!r}")
    return time.perf_counter_ns()


def wait(sock, event):
    """Wait until sock is ready for event. Raises WrongAnswer after TIMEOUT seconds."""
    poll = select.poll()
    poll.register(sock, event)
    if not poll.poll(TIMEOUT * 1000):
        text = "it may serve fewer clients at a time than there are connections"
        raise WrongAnswer(f"was silent for {TIMEOUT:g} s: {text}")


def silent():
    raise WrongAnswer(f"was silent for {TIMEOUT:g} s in the middle of a round")


def main():
    core, host, port, first = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    generator = Generator((host, int(port)), int(first))
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            name, *values = pickle.load(sys.stdin.buffer)
            try:
                reply = getattr(generator, name)(*values), None
            except (OSError, WrongAnswer) as error:
                reply = None, str(error)
            pickle.dump(reply, sys.stdout.buffer, pickle.HIGHEST_PROTOCOL)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
