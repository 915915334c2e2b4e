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


def serve(listener, greet):
    listener.setblocking(False)  # a newcomer may be gone again before accept() is called
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    clients, full = {}, False  # {descriptor: Client}; full: no descriptor is left
    while True:
        for fd, _ in epoll.poll():  # what the event was, recv() and send() will tell
            client = clients.get(fd)
            if client is None:
                if not welcome(listener, epoll, clients):
                    epoll.unregister(listener)  # level-triggered: it would be reported for ever
                    full = True
            elif not handle(client, greet, epoll):
                del clients[fd]
                client.conn.close()  # this takes it out of the epoll set, too
                if full:
                    epoll.register(listener, select.EPOLLIN)
                    full = False


class Client:
    """What must be remembered of a connection from one event to the next."""

    __slots__ = "conn", "peer", "heard", "unsent"

    def __init__(self, conn, peer):
        self.conn, self.peer, self.heard = conn, peer, 0
        self.unsent = b""  # the rest of a reply: while there is one, we wait to write, else to read


def welcome(listener, epoll, clients):
    """Accept everybody in the queue; return False if that must wait until somebody leaves."""
    while True:
        try:
            conn, peer = listener.accept()
            conn.setblocking(False)
            epoll.register(conn, select.EPOLLIN)
        except BlockingIOError:  # the accept queue is empty
            return True
        except OSError as error:  # out of descriptors: the newcomer waits in the accept queue
            logging.warning("cannot accept: %s; trying again when a client leaves", error)
            if not clients:
                time.sleep(1)
            return not clients
        logging.info("%s:%d connected", *peer)
        clients[conn.fileno()] = Client(conn, peer)


def handle(client, greet, epoll):
    """Do the one thing that this client waits for; return False when it has left."""
    conn, data = client.conn, client.unsent
    try:
        if not data:
            chunk = conn.recv(1024)
            if not chunk:  # end of file: the client will say no more
                logging.info("%s:%d left, %d bytes heard", *client.peer, client.heard)
                return False
            if logging.root.level <= logging.INFO:  # 0.4 µs saved where nothing is logged
                logging.info("%s:%d said %r", *client.peer, chunk)
            client.heard += len(chunk)
            data = greet(chunk)
        sent = conn.send(data)
    except BlockingIOError:  # nothing to read, or no room to write: epoll tells when there is
        sent = 0
    except OSError as error:  # a reset ends this connection and no other
        logging.info("%s:%d broke off: %s", *client.peer, error)
        return False
    if sent < len(data) or client.unsent:
        client.unsent = data[sent:]
        epoll.modify(conn, select.EPOLLOUT if client.unsent else select.EPOLLIN)
    return True


def greeting(chunk):
    return b"Hello, " + chunk


def slowed(greet, wait, compute):
    def slow_greet(chunk):
        time.sleep(wait)  # as for a database: the thread sleeps
        done = time.thread_time() + compute  # CPU time: threads that share a core take longer
        while time.thread_time() < done:
            pass
        return greet(chunk)

    return slow_greet if wait or compute else greet


def main():
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
    if not (0 <= args.wait <= 3600 and 0 <= args.compute <= 3600):
        parser.error("--wait and --compute take 0 to 3600 seconds")
    logging.basicConfig(format="%(message)s", level="WARNING" if args.quiet else "INFO")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # kill ends it as Ctrl-C does
    try:
        listener = socket.create_server((args.host, args.port), backlog=args.backlog)
    except (OSError, OverflowError) as error:
        sys.exit(f"cannot listen on {args.host}:{args.port}: {error}")
    try:
        print("listening on %s:%d" % listener.getsockname(), flush=True)
        serve(listener, slowed(greeting, args.wait, args.compute))
    except KeyboardInterrupt:
        logging.info("stopped")


if __name__ == "__main__":
    main()
