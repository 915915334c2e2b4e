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


def serve(listener, options):
    listener.setblocking(False)
    selector = getattr(selectors, options.selector.capitalize() + "Selector")()
    selector.register(listener, READ)
    resume = None  # when to accept again after an error (time.monotonic())
    while True:
        for key, _ in selector.select(resume and max(0, resume - time.monotonic())):
            if key.data is None:
                if not accept_all(listener, selector, options):
                    selector.unregister(listener)
                    resume = time.monotonic() + 1
            elif not handle(key.fileobj, key.data, selector, options):
                selector.unregister(key.fileobj)
                key.fileobj.close()
                logging.info("%s:%d left, %d bytes received", *key.data.remote, key.data.received)
                resume = resume and 0.0  # there is room again
        if resume is not None and time.monotonic() >= resume:
            selector.register(listener, READ)
            resume = None


def accept_all(listener, selector, options):
    """Accept every connection in the accept queue; return False if accept() fails."""
    try:
        while True:
            try:
                add(*listener.accept(), selector, options)
            except ConnectionAbortedError:  # a reset in the queue, see accept(2)
                continue
    except BlockingIOError:  # the queue is empty
        return True
    except OSError as error:
        logging.warning("cannot accept: %s; trying again in a second", error)
        return False


def add(conn, remote, selector, options):
    if options.selector == "select" and conn.fileno() >= 1024:  # FD_SETSIZE, see select(2)
        logging.warning("%s:%d rejected: select() takes descriptors up to 1,023 only", *remote)
        conn.close()
        return
    logging.info("%s:%d connected", *remote)
    conn.setblocking(False)
    selector.register(conn, READ, SimpleNamespace(remote=remote, received=0, unsent=b""))


def handle(conn, client, selector, options):
    data = client.unsent
    try:
        if not data:
            chunk = conn.recv(1024)
            if not chunk:
                return False
            logging.info("%s:%d said %r", *client.remote, chunk)
            client.received += len(chunk)
            if options.wait:
                time.sleep(options.wait)
            data = options.greet(chunk)
        sent = conn.send(data)
    except BlockingIOError:
        sent = 0
    except OSError as error:
        logging.info("%s:%d connection lost: %s", *client.remote, error)
        return False
    if sent < len(data) or client.unsent:
        client.unsent = data[sent:]
        selector.modify(conn, WRITE if client.unsent else READ, client)
    return True


if __name__ == "__main__":
    run(serve, __doc__, selector=SELECTOR)
