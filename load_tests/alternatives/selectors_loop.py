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
    while True:
        for key, _ in selector.select():
            if key.data is None:
                accept(listener, selector, options)
            elif not handle(key.fileobj, key.data, selector, options):
                selector.unregister(key.fileobj)
                key.fileobj.close()
                logging.info("%s:%d left, %d bytes heard", *key.data.peer, key.data.heard)
                if listener not in selector.get_map():
                    selector.register(listener, READ)


def accept(listener, selector, options):
    try:
        while True:
            take(*listener.accept(), selector, options)
    except BlockingIOError:
        pass
    except OSError as error:
        logging.warning("cannot accept: %s; trying again when a client leaves", error)
        if len(selector.get_map()) > 1:
            selector.unregister(listener)
        else:
            time.sleep(1)


def take(conn, peer, selector, options):
    if options.selector == "select" and conn.fileno() >= 1024:  # FD_SETSIZE, see select(2)
        logging.warning("%s:%d turned away: select() knows the descriptors to 1,023 only", *peer)
        conn.close()
        return
    logging.info("%s:%d connected", *peer)
    conn.setblocking(False)
    selector.register(conn, READ, SimpleNamespace(peer=peer, heard=0, unsent=b""))


def handle(conn, client, selector, options):
    data = client.unsent
    try:
        if not data:
            chunk = conn.recv(1024)
            if not chunk:
                return False
            logging.info("%s:%d said %r", *client.peer, chunk)
            client.heard += len(chunk)
            if options.wait:
                time.sleep(options.wait)
            data = options.greet(chunk)
        sent = conn.send(data)
    except BlockingIOError:
        sent = 0
    except OSError as error:
        logging.info("%s:%d broke off: %s", *client.peer, error)
        return False
    if sent < len(data) or client.unsent:
        client.unsent = data[sent:]
        selector.modify(conn, WRITE if client.unsent else READ, client)
    return True


if __name__ == "__main__":
    run(serve, __doc__, selector=SELECTOR)
