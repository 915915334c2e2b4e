"""Bring a server into the state in which it will be all its life, before it is measured.

A program that has served nobody yet is not what its users meet. The worst case here is asyncio:
until the first client has left, each of its reads maps and unmaps memory (README.md, "A number that
was true and meant nothing").
"""

import contextlib
import socket
import time

VISITORS = 20
ENOUGH = 1.0  # seconds of warming: a server that works long for a greeting has few visitors
PATIENCE = 10.0  # seconds to wait for one answer


def warm(address):
    """Let visitors come to a server one after the other: connect, be greeted, say no more, leave.

    A server that does not serve them is not judged here: what is measured next will tell.
    """
    until = time.monotonic() + ENOUGH
    with contextlib.suppress(OSError):
        for _ in range(VISITORS):
            with socket.create_connection(address, PATIENCE) as sock:
                sock.sendall(b"warm")
                sock.recv(1024)
                sock.shutdown(socket.SHUT_WR)
                sock.recv(1024)  # the end: the server has closed
            if time.monotonic() > until:
                break
