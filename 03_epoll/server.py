"""Event-loop server: one thread asks epoll which sockets are ready, and waits for all at once.

Run it: python3 03_epoll/server.py --port 3267
"""

import argparse
import logging
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass


def serve(listener, greet):
    listener.setblocking(False)  # accept() then reports an empty queue, and does not wait
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    listener_fd, clients, retry_at = listener.fileno(), {}, None  # clients: {descriptor: Client}
    while True:
        for fd, _ in epoll.poll(1 if retry_at else None):  # recv() and send() show which event
            if fd == listener_fd:
                retry_at = accept_all(listener, epoll, clients)
            elif not handle(clients[fd], greet, epoll):
                client = clients.pop(fd)
                client.conn.close()  # the last copy: this also removes it from the interest list
                logging.info("%s:%d left, %d bytes received", *client.remote, client.bytes_received)
                epoll.modify(listener, select.EPOLLIN)  # a descriptor is free: see accept_all()
        if retry_at and time.monotonic() >= retry_at:
            retry_at = None
            epoll.modify(listener, select.EPOLLIN)


@dataclass(slots=True)
class Client:
    """The state of one connection, kept from event to event."""

    conn: socket.socket
    remote: tuple[str, int]  # the client's address
    bytes_received: int = 0
    unsent: bytes = b""  # the rest of a reply; EPOLLOUT is watched while there is one, else EPOLLIN


def accept_all(listener, epoll, clients):
    """Accept all connections in the accept queue; return the time to try again, or None."""
    try:
        while True:
            conn, remote = listener.accept()
            conn.setblocking(False)
            epoll.register(conn, select.EPOLLIN)
            logging.info("%s:%d connected", *remote)
            clients[conn.fileno()] = Client(conn, remote)
    except (BlockingIOError, ConnectionAbortedError):  # the queue is empty; a client has gone
        return None
    except OSError as error:  # out of descriptors, or another error of accept(2)
        logging.warning("cannot accept: %s; trying again in a second", error)
        epoll.modify(listener, 0)  # or epoll reports it again at once, and forever
        return time.monotonic() + 1


def handle(client, greet, epoll):
    """Read and greet a chunk, or send the rest of a reply; return False at the connection's end."""
    reply = client.unsent
    try:
        if not reply:
            chunk = client.conn.recv(1024)
            if not chunk:  # end of file: the client sends no more
                return False
            logging.info("%s:%d said %r", *client.remote, chunk)
            client.bytes_received += len(chunk)
            reply = greet(chunk)
        sent = client.conn.send(reply)  # maybe only a part of it
    except BlockingIOError:  # nothing to read, or no room to write: epoll will report it
        sent = 0
    except OSError as error:  # a reset ends this connection and no other
        logging.info("%s:%d connection lost: %s", *client.remote, error)
        return False
    if sent < len(reply) or client.unsent:
        client.unsent = reply[sent:]
        epoll.modify(client.conn, select.EPOLLOUT if client.unsent else select.EPOLLIN)
    return True


def greeting(chunk, wait, compute):
    if wait:
        time.sleep(wait)  # as if for a database: the thread sleeps
    if compute:
        done = time.thread_time() + compute  # CPU time: threads that share a core take longer
        while time.thread_time() < done:
            pass
    return b"Hello, " + chunk


def main():
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)  # short errors
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3267, help="0: any free one")
    parser.add_argument("--backlog", type=int, default=5, help="for listen()")
    parser.add_argument("--wait", type=float, default=0, help="seconds that each greeting sleeps")
    parser.add_argument("--compute", type=float, default=0, help="seconds that each one computes")
    parser.add_argument("--quiet", action="store_true", help="log only warnings and errors")
    args = parser.parse_args()
    if not hasattr(select, "epoll"):
        parser.error("epoll is Linux's own: run 01_blocking or 02_threaded, or this in a container")
    if not (args.host and 0 <= args.wait <= 3600 and 0 <= args.compute <= 3600):
        parser.error("--host takes an address, --wait and --compute 0 to 3600 seconds")
    logging.basicConfig(format="%(message)s", level="WARNING" if args.quiet else "INFO")
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C, kill
        signal.signal(number, lambda *_: os._exit(0))  # at once, even if nobody reads the log
    try:
        listener = socket.create_server((args.host, args.port), backlog=args.backlog)
        print("listening on %s:%d" % listener.getsockname(), flush=True)
    except (OSError, OverflowError, TypeError) as error:
        sys.exit(f"cannot listen on {args.host}:{args.port}: {error}")
    serve(listener, lambda chunk: greeting(chunk, args.wait, args.compute))


if __name__ == "__main__":
    main()
