"""Event loop that reads like threads: gevent switches to another client wherever one waits.

Run it: .venv/bin/python load_tests/alternatives/gevent_server.py --port 3267
"""

import gevent
from common import converse, run
from gevent.server import StreamServer


def start(listener, options):
    def handle(conn, remote):
        converse(conn, remote, options, gevent.sleep)

    # A listener of gevent's own type: while its accept() waits, other clients are served.
    return StreamServer(gevent.socket.socket(fileno=listener.detach()), handle).serve_forever


if __name__ == "__main__":
    run(start, __doc__)
