"""Warm a server before it is measured.

A program that has not served a client yet is not what its users meet. The worst case is asyncio:
until the first client has left, each of its reads maps and unmaps memory (BENCH.md, "A number that
was true and meant nothing").
"""

import contextlib
import socket
import time

VISITORS = 20
LIMIT = 1.0  # seconds of warming: a server with slow greetings gets fewer visitors
TIMEOUT = 10.0  # seconds to wait for one answer


def warm(address):
    """Send visitors to a server one after the other; each connects, is greeted, and leaves."""
    until = time.monotonic() + LIMIT
    with contextlib.suppress(OSError):  # it does not serve them: the measurement will show it
        for _ in range(VISITORS):
            with socket.create_connection(address, TIMEOUT) as sock:
                sock.sendall(b"warm")
                sock.recv(1024)
                sock.shutdown(socket.SHUT_WR)
                sock.recv(1024)  # the end: the server has closed
            if time.monotonic() > until:
                break
