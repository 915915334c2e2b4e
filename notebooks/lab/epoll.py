"""What epoll reports of a connection, and when; the cost of a wake-up of select, poll and epoll."""

import contextlib
import functools
import os
import select
import socket
import statistics
import timeit
from pathlib import Path

from clients.system.sockets import reset_on_close

from .helpers import connection

NAMES = ("EPOLLIN", "EPOLLOUT", "EPOLLRDHUP", "EPOLLERR", "EPOLLHUP")
TIMEOUT = 2.0  # seconds that an event may take


class Watched:
    """A connection with its server's end in the interest list of an epoll: client, conn, epoll."""

    def __init__(self, flags=None):
        self.client, self.conn = connection()
        self.conn.setblocking(False)
        self.epoll = select.epoll()
        # EPOLLERR and EPOLLHUP are reported in any case (epoll_ctl(2)).
        self.epoll.register(self.conn, flags or select.EPOLLIN | select.EPOLLRDHUP)

    def event(self, wait=TIMEOUT):
        """Return the flags of the next event: "EPOLLIN EPOLLRDHUP"; "nothing" if none comes."""
        events = self.epoll.poll(wait)
        if not events:
            return "nothing"
        [(_, mask)] = events  # only one descriptor is watched
        return names(mask)

    def received(self, size=1024):
        """Return what recv() returns, or the name of what it raises."""
        try:
            return repr(self.conn.recv(size))
        except OSError as error:
            return type(error).__name__


def names(mask, known=NAMES):
    """Return the names of an event mask's flags."""
    return " ".join(name for name in known if mask & getattr(select, name))


def interest(sock):
    """Return the events for which this process's epolls watch a socket: "EPOLLIN", "nothing".

    The kernel lists its interest lists in /proc/self/fdinfo (proc_pid_fdinfo(5), "tfd:").
    """
    mask = 0
    for file in Path("/proc/self/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, as this list's own is
            for words in map(str.split, file.read_text().splitlines()):
                if words[:2] == ["tfd:", str(sock.fileno())]:
                    mask |= int(words[3], 16)
    return names(mask, NAMES[:2]) or "nothing"  # EPOLLERR and EPOLLHUP are always in it


WHAT_HAPPENS = {
    "the client sends bob": lambda client, conn: client.send(b"bob"),
    "the client closes its sending half": lambda client, conn: client.shutdown(socket.SHUT_WR),
    "the client closes": lambda client, conn: client.close(),
    "the client sends bob and closes": lambda client, conn: (client.send(b"bob"), client.close()),
    "the client resets": lambda client, conn: (reset_on_close(client), client.close()),
    "both sides close their sending halves": lambda *ends: [
        end.shutdown(socket.SHUT_WR) for end in ends
    ],
}


def table():
    """Return [(what happens, the event, what recv() returns), ...], each tried once."""
    rows = []
    for what, happen in WHAT_HAPPENS.items():
        pair = Watched()
        happen(pair.client, pair.conn)
        pair.epoll.poll(TIMEOUT)
        last = ""
        while (now := pair.event(0.05)) != last:  # until the last packet has arrived
            last = now
        rows.append((what, pair.event(), pair.received()))
    return rows


def fill(pair):
    """Send until the kernel takes no more; return how many bytes it took."""
    taken = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            taken += pair.conn.send(bytes(65536))
    return taken


def wake_up(kind, count, times=200):
    """Return the seconds that one wake-up takes, the median of as many calls as times.

    kind: "select", "poll" or "epoll"; count: descriptors that are watched, of which one is ready.
    They are eventfds (eventfd(2)): one descriptor each, and nothing to send. Raises ValueError
    if a descriptor is too large for select.
    """
    with contextlib.ExitStack() as stack:
        fds = [os.eventfd(0) for _ in range(count)]
        for fd in fds:
            stack.callback(os.close, fd)
        os.eventfd_write(fds[-1], 1)
        if kind == "select":
            poll = functools.partial(select.select, fds, [], [])
        else:
            polled = select.poll() if kind == "poll" else stack.enter_context(select.epoll())
            for fd in fds:
                polled.register(fd, select.POLLIN)  # EPOLLIN is the same number
            poll = polled.poll
        return statistics.median(timeit.repeat(poll, number=1, repeat=times))
