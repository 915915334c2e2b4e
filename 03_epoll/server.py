"""Event-loop server: one thread asks epoll who is ready and never waits for one client alone.

Run it: python3 03_epoll/server.py --port 3267
"""

import argparse
import logging
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass


def serve(listener, greet):
    listener.setblocking(False)  # accept() then says that the queue is empty, and does not wait
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    door, clients = listener.fileno(), {}  # {descriptor: Client}
    while True:
        for fd, _ in epoll.poll():  # what the event was, recv() and send() will tell
            if fd == door:
                welcome(listener, epoll, clients)
            elif not handle(clients[fd], greet, epoll):
                client = clients.pop(fd)
                client.conn.close()  # this takes it out of the epoll set, too
                logging.info("%s:%d left, %d bytes heard", *client.peer, client.heard)
                epoll.modify(listener, select.EPOLLIN)  # there is room again: see welcome()


@dataclass(slots=True)
class Client:
    """What must be remembered of a connection from one event to the next."""

    conn: socket.socket
    peer: tuple[str, int]
    heard: int = 0  # bytes
    unsent: bytes = b""  # the rest of a reply: while there is one, wait to write, else to read


def welcome(listener, epoll, clients):
    """Accept everybody in the accept queue."""
    try:
        while True:
            conn, peer = listener.accept()
            conn.setblocking(False)
            epoll.register(conn, select.EPOLLIN)
            logging.info("%s:%d connected", *peer)
            clients[conn.fileno()] = Client(conn, peer)
    except BlockingIOError:  # the queue is empty
        pass
    except OSError as error:  # out of descriptors, or what else accept(2) lists
        logging.warning("cannot accept: %s; trying again when a client leaves", error)
        if clients:
            epoll.modify(listener, 0)  # or it would be reported again at once, for ever
        else:
            time.sleep(1)


def handle(client, greet, epoll):
    """Do the one thing that this client waits for; return False when it has left."""
    reply = client.unsent
    try:
        if not reply:
            chunk = client.conn.recv(1024)
            if not chunk:  # end of file: the client will say no more
                return False
            logging.info("%s:%d said %r", *client.peer, chunk)
            client.heard += len(chunk)
            reply = greet(chunk)
        sent = client.conn.send(reply)  # maybe only a part
    except BlockingIOError:  # nothing to read, or no room to write: epoll tells when there is
        sent = 0
    except OSError as error:  # a reset ends this connection and no other
        logging.info("%s:%d broke off: %s", *client.peer, error)
        return False
    if sent < len(reply) or client.unsent:
        client.unsent = reply[sent:]
        epoll.modify(client.conn, select.EPOLLOUT if client.unsent else select.EPOLLIN)
    return True


def greeting(chunk, wait, compute):
    if wait:
        time.sleep(wait)  # as for a database: the thread sleeps
    if compute:
        done = time.thread_time() + compute  # CPU time: threads that share a core take longer
        while time.thread_time() < done:
            pass
    return b"Hello, " + chunk


def main():
    # Without the usage, what is wrong with an option is told in one line.
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3267, help="0 takes a free one")
    parser.add_argument("--backlog", type=int, default=5, help="what listen() is given")
    parser.add_argument("--wait", type=float, default=0, help="seconds each greeting sleeps")
    parser.add_argument("--compute", type=float, default=0, help="seconds each one computes")
    parser.add_argument("--quiet", action="store_true", help="log only warnings and errors")
    args = parser.parse_args()
    if not hasattr(select, "epoll"):
        parser.error("epoll is Linux's own: run 01_blocking or 02_threaded, or this in a container")
    if not (args.host and 0 <= args.wait <= 3600 and 0 <= args.compute <= 3600):
        parser.error("--host takes an address, --wait and --compute 0 to 3600 seconds")
    logging.basicConfig(format="%(message)s", level="WARNING" if args.quiet else "INFO")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # kill ends it as Ctrl-C does
    try:
        try:
            listener = socket.create_server((args.host, args.port), backlog=args.backlog)
            print("listening on %s:%d" % listener.getsockname(), flush=True)
        except (OSError, OverflowError, TypeError) as error:
            sys.exit(f"cannot listen on {args.host}:{args.port}: {error}")
        serve(listener, lambda chunk: greeting(chunk, args.wait, args.compute))
    except KeyboardInterrupt:
        logging.info("stopped")


if __name__ == "__main__":
    main()
