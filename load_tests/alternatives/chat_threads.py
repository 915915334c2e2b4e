"""Chat, a thread per client: each line that a client sends goes to all clients.

Run it: python3 load_tests/alternatives/chat_threads.py --send-timeout 1 --port 3267

The lock gives all clients the lines in the same order. The thread that holds it blocks in sendall()
while a client does not read and its buffers are full; meanwhile all others wait for the lock.
"""

import contextlib
import functools
import logging
import socket
import struct
import threading

import socketserver_threads
from common import run

SEND_TIMEOUT = {"type": float, "help": "seconds for which a client may block all; None: no limit"}
LONGEST = 1024  # bytes of a line
clients, lock = {}, threading.Lock()  # {socket: (host, port)}; the lock is for it, and for sending


def chat(conn, remote, options):
    logging.info("%s:%d connected", *remote)
    if options.send_timeout is not None:  # settimeout() would limit recv() as well
        seconds, rest = divmod(options.send_timeout, 1)
        limit = struct.pack("ll", int(seconds), int(rest * 1e6))
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    with lock:
        clients[conn] = remote
    try:
        with conn.makefile("rb") as lines:
            while (line := lines.readline(LONGEST)).endswith(b"\n"):
                send_to_all(line)
    except OSError as error:
        logging.info("%s:%d connection lost: %s", *remote, error)
    with lock:
        clients.pop(conn, None)
    logging.info("%s:%d left", *remote)


def send_to_all(line):
    with lock:
        for conn, remote in list(clients.items()):
            try:
                conn.sendall(line)
            except OSError as error:  # it has left, or did not read for too long
                logging.info("%s:%d dropped: %s", *remote, error)
                del clients[conn]
                with contextlib.suppress(OSError):  # it was reset
                    conn.shutdown(socket.SHUT_RDWR)  # wakes its own thread, which closes it


if __name__ == "__main__":
    start = functools.partial(socketserver_threads.start, converse=chat)
    run(start, __doc__, send_timeout=SEND_TIMEOUT)
