"""Event loop: the one of 03_epoll, written with the standard library's selectors.

Run it: python3 load_tests/alternatives/selectors_loop.py --selector poll --port 3267
"""

import logging
import select
import selectors
import time
from types import SimpleNamespace

from common import run

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
KINDS = [kind for kind in ("select", "poll", "epoll") if hasattr(select, kind)]
SELECTOR = {"choices": KINDS, "default": KINDS[-1]}


def run_loop(kind, description, **more):
    """Run an alternative: kind is Loop or a subclass, the others are arguments of run()."""
    run(lambda *given: kind(*given).run, description, selector=SELECTOR, **more)


class Loop:
    """The listening socket and the clients' sockets, and the selector that waits for all of them.

    Other alternatives are subclasses that replace some of its methods.
    """

    def __init__(self, listener, options):
        listener.setblocking(False)
        self.listener, self.options = listener, options
        self.selector = getattr(selectors, options.selector.capitalize() + "Selector")()
        self.watch_listener()
        self.resume = None  # when to accept again after an error (time.monotonic())

    def watch_listener(self):
        self.selector.register(self.listener, READ)

    def run(self):
        while True:
            self.run_once()

    def run_once(self, timeout=None):
        """Wait until sockets are ready, at most timeout seconds; serve them; return their keys."""
        if self.resume is not None:
            timeout = max(0, self.resume - time.monotonic())
        ready = [key for key, _ in self.selector.select(timeout)]
        for key in ready:
            if key.data is None:
                self.wake(key.fileobj)
            elif not self.handle(key.fileobj, key.data):
                self.close(key.fileobj, key.data)
                self.resume = self.resume and 0.0  # there is room again
        if self.resume is not None and time.monotonic() >= self.resume:
            self.watch_listener()
            self.resume = None
        return ready

    def wake(self, listener):
        if not self.accept_all():
            self.selector.unregister(listener)
            self.resume = time.monotonic() + 1

    def accept_all(self):
        """Accept every connection in the accept queue; return False if accept() fails."""
        while True:
            try:
                self.add(*self.listener.accept())
            except ConnectionAbortedError:  # a reset in the queue, see accept(2)
                continue
            except BlockingIOError:  # the queue is empty
                return True
            except OSError as error:
                logging.warning("cannot accept: %s; trying again in a second", error)
                return False

    def add(self, conn, remote):
        if self.options.selector == "select" and conn.fileno() >= 1024:  # FD_SETSIZE, see select(2)
            logging.warning("%s:%d rejected: select() takes descriptors up to 1,023 only", *remote)
            conn.close()
            return
        logging.info("%s:%d connected", *remote)
        conn.setblocking(False)
        self.selector.register(conn, READ, SimpleNamespace(remote=remote, received=0, unsent=b""))

    def handle(self, conn, client):
        """Answer a chunk, or send the rest of an answer; return False at the connection's end."""
        data = client.unsent
        try:
            if not data:
                chunk = self.receive(conn)
                if not chunk:
                    return False
                logging.info("%s:%d said %r", *client.remote, chunk)
                client.received += len(chunk)
                data = self.answer(chunk, client)
            sent = conn.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            logging.info("%s:%d connection lost: %s", *client.remote, error)
            return False
        if sent < len(data) or client.unsent:
            client.unsent = data[sent:]
            self.selector.modify(conn, WRITE if client.unsent else READ, client)
        return True

    def receive(self, conn):
        return conn.recv(1024)

    def answer(self, chunk, client):
        if self.options.wait:
            time.sleep(self.options.wait)
        return self.options.greet(chunk)

    def close(self, conn, client):
        self.selector.unregister(conn)
        conn.close()
        logging.info("%s:%d left, %d bytes received", *client.remote, client.received)

    def clients(self):
        """Return {socket: client} of the connections."""
        return {key.fileobj: key.data for key in self.selector.get_map().values() if key.data}


if __name__ == "__main__":
    run_loop(Loop, __doc__)
