"""Warm a server before it is measured.

A program that has not served a client yet is not what its users meet. The worst case is asyncio:
until the first client has left, each of its reads maps and unmaps memory (BENCH.md, "A number that
was true and meant nothing").
"""

import contextlib
import socket
import time

from clients.client import Client

VISITORS = 20
LIMIT = 1.0  # seconds of warming: a server with slow greetings gets fewer visitors


def warm(address):
    """Send visitors to a server one after the other; each connects, is greeted, and leaves."""
    until = time.monotonic() + LIMIT
    with contextlib.suppress(OSError, ValueError):  # not served: the measurement will show it
        for _ in range(VISITORS):
            with Client(*address) as client:
                client.greet(b"warm")
                client.socket.shutdown(socket.SHUT_WR)
                client.socket.recv(1024)  # the end: the server has closed
            if time.monotonic() > until:
                break
