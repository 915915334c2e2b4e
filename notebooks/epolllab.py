"""What epoll says of a connection, and when: one event at a time."""

import contextlib
import select
import socket
import struct

NAMES = ("EPOLLIN", "EPOLLOUT", "EPOLLRDHUP", "EPOLLERR", "EPOLLHUP")
ALL = select.EPOLLIN | select.EPOLLRDHUP  # EPOLLERR and EPOLLHUP come unasked (epoll_ctl(2))
PATIENCE = 2.0  # seconds that an event may take


class Watched:
    """A connection whose server's end is watched by epoll: client, conn and epoll.

    flags: what to watch for, EPOLLIN and EPOLLRDHUP unless told otherwise.
    """

    def __init__(self, flags=ALL):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname())
            self.conn, _ = listener.accept()
        self.conn.setblocking(False)
        self.epoll = select.epoll()
        self.epoll.register(self.conn, flags)

    def event(self, wait=PATIENCE):
        """Return the flags of the next event: "EPOLLIN EPOLLRDHUP"; "nothing" if none comes."""
        for _, mask in self.epoll.poll(wait):
            return " ".join(name for name in NAMES if mask & getattr(select, name))
        return "nothing"

    def heard(self, size=1024):
        """Return what recv() gives, or the name of what it raises."""
        try:
            return repr(self.conn.recv(size))
        except OSError as error:
            return type(error).__name__

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for end in (self.client, self.conn, self.epoll):
            with contextlib.suppress(OSError):
                end.close()


def message(pair):
    pair.client.send(b"bob")


def half_close(pair):
    pair.client.shutdown(socket.SHUT_WR)


def close(pair):
    pair.client.close()


def message_and_close(pair):
    pair.client.send(b"bob")
    pair.client.close()


def reset(pair):
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.client.close()


def both_shut(pair):
    pair.conn.shutdown(socket.SHUT_WR)
    pair.client.shutdown(socket.SHUT_WR)


WHAT_HAPPENS = {
    "the client sends bob": message,
    "the client closes its sending half": half_close,
    "the client closes": close,
    "the client sends bob and closes": message_and_close,
    "the client resets": reset,
    "both sides close their sending halves": both_shut,
}


def table():
    """Return [(what happens, the flags of the event, what recv() gives), ...], one try each."""
    rows = []
    for what, happen in WHAT_HAPPENS.items():
        with Watched() as pair:
            happen(pair)
            settle(pair)
            rows.append((what, pair.event(), pair.heard()))
    return rows


def settle(pair):
    """Wait until the last packet of what has happened is there."""
    pair.epoll.poll(PATIENCE)
    last = ""
    while (now := pair.event(0.05)) != last:
        last = now


def fill(pair):
    """Send until the kernel takes no more; return how many bytes it took."""
    taken = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            taken += pair.conn.send(bytes(65536))
    return taken


def drain(pair, size):
    """Let the client read so many bytes."""
    while size:
        size -= len(pair.client.recv(min(size, 65536)))
