"""One process that keeps a greeting server busy; bench.py starts it and tells it what to do.

Its arguments are CORE HOST PORT FIRST: it runs on that processor core, and numbers its connections
from FIRST on. Commands come as pickles on standard input: ("hold", 10, 0), ("greet", 1.0),
("visit", 10, 1.0). To each it writes a pickle (result, None) or (None, what went wrong). It ends
with its standard input.

Both loads are closed loops: whoever has its answer asks again at once, and nobody else comes. The
inner loops do as little as Python can, or the generator would be slower than the server.
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

PATIENCE = 10.0  # seconds without an answer after which the server counts as lost
MOST = 5_000_000  # greetings or visits in one round
SPREAD = 20_000  # connections from one source address: it has 28,232 ports by default, see ip(7)
BIND_ADDRESS_NO_PORT = 24  # ip(7); Python 3.11 has no name for it


class Wrong(Exception):
    """The server did not answer as it should."""


class Generator:
    """The connections to one server, and what is done with them."""

    def __init__(self, address, first):
        self.address, self.number = address, first
        self.busy, self.idle = [], []  # (socket, its message)

    def hold(self, busy, idle):
        """Open so many more connections of each kind; each is greeted once, to be sure of it."""
        for kind, count in (self.busy, busy), (self.idle, idle):
            for _ in range(count):
                sock, message = self.come()
                kind.append((sock, message))
                check(sock, b"", b"Hello, " + message)

    def come(self):
        """Connect and say the first message; return the socket and the message."""
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
        try:  # over loopback the handshake is over when connect() returns
            sock.send(message)
        except BlockingIOError:  # but not if the accept queue is full
            wait(sock, select.POLLOUT)
            sock.send(message)
        return sock, message

    def greet(self, seconds):
        """Greet on all the busy connections; return what round_of() gives."""
        epoll, table, asked, waits = select.epoll(), {}, {}, array("q")
        poll, note, now = epoll.poll, waits.append, time.perf_counter_ns
        for sock, message in self.busy:
            epoll.register(sock, select.EPOLLIN)
            table[sock.fileno()] = sock.recv, sock.send, message, b"Hello, " + message, sock
        began, cpu, in_flight = now(), time.process_time_ns(), len(table)
        until = began + int(seconds * 1e9)
        for fd, (_, send, message, *_) in table.items():
            asked[fd] = now()
            send(message)
        while in_flight:
            events = poll(PATIENCE)
            for fd, _ in events:
                recv, send, message, expected, sock = table[fd]
                answer = recv(2048)
                at = now()
                if answer != expected:
                    at = check(sock, answer, expected)
                note(at - asked[fd])
                if at < until:
                    asked[fd] = at
                    send(message)
                else:
                    in_flight -= 1
            until = go_on(events, waits, until)
        return round_of(waits, now() - began, time.process_time_ns() - cpu)

    def visit(self, count, seconds):
        """Let count visitors at a time connect, be greeted once, say no more, and be let go."""
        epoll, table, waits = select.epoll(), {}, array("q")
        now = time.perf_counter_ns
        began, cpu, in_flight = now(), time.process_time_ns(), count
        until = began + int(seconds * 1e9)

        for _ in range(count):
            self.enter(epoll, table)
        while in_flight:
            events = epoll.poll(PATIENCE)
            for fd, _ in events:
                sock, came, expected = table[fd]
                answer = sock.recv(2048)
                if answer != expected:
                    check(sock, answer, expected)
                if expected:
                    sock.shutdown(socket.SHUT_WR)
                    table[fd] = sock, came, b""  # next, the server closes
                    continue
                at = now()
                waits.append(at - came)
                sock.close()
                if at < until:
                    self.enter(epoll, table)
                else:
                    in_flight -= 1
            until = go_on(events, waits, until)
        return round_of(waits, now() - began, time.process_time_ns() - cpu)

    def enter(self, epoll, table):
        """Let a visitor come: it waits for its greeting, and then for the server's close."""
        came = time.perf_counter_ns()
        sock, message = self.come()
        table[sock.fileno()] = sock, came, b"Hello, " + message
        epoll.register(sock, select.EPOLLIN)


def check(sock, answer, expected):
    """Read the rest of an answer that came in parts; return the time. Raises Wrong."""
    while len(answer) < len(expected) and expected.startswith(answer):
        wait(sock, select.POLLIN)
        part = sock.recv(2048)
        if not part:
            raise Wrong(f"closed the connection after {answer!r}, before {expected!r} was whole")
        answer += part
    if answer != expected:
        raise Wrong(f"answered {answer!r:.200} and not {expected!r}")
    return time.perf_counter_ns()


def wait(sock, event):
    """Wait until something can be read from sock, or written to it."""
    poll = select.poll()
    poll.register(sock, event)
    if not poll.poll(PATIENCE * 1000):
        raise Wrong(
            f"was silent for {PATIENCE:g} s: it may serve fewer clients at a time than there are "
            "connections"
        )


def go_on(events, waits, until):
    """Return until when to go on: now at the latest if there is too much already."""
    if not events:
        raise Wrong(f"was silent for {PATIENCE:g} s in the middle of a round")
    return until if len(waits) < MOST else 0


def round_of(waits, elapsed, cpu):
    """Return the result of a round: waits in ns, and how many seconds it and its CPU time took."""
    return {"waits": waits, "seconds": elapsed / 1e9, "cpu": cpu / 1e9}


def main():
    core, host, port, first = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    generator = Generator((host, int(port)), int(first))
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            name, *arguments = pickle.load(sys.stdin.buffer)
            try:
                reply = getattr(generator, name)(*arguments), None
            except (OSError, Wrong) as error:
                reply = None, str(error)
            pickle.dump(reply, sys.stdout.buffer, pickle.HIGHEST_PROTOCOL)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
