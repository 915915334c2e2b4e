"""What the peers share: their options, the application, the start and the end.

A peer hands run() a function serve(listener, options). The listener is bound and listens. Of the
options, serve() needs greet (what to answer to a chunk; --compute is in it), wait (seconds that
each greeting waits: how, is up to the peer), backlog, and those that the peer adds.
"""

import argparse
import ctypes
import logging
import os
import signal
import socket
import sys
import time


def run(serve, description, prepare=None, **more):
    """Run a peer until SIGTERM or Ctrl-C.

    description: its docstring. prepare: called as serve is, before the line is printed that says
    that all is ready. more: its own options, {name: what add_argument() takes}.
    """
    options = parse(description, more)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not KeyboardInterrupt: each framework makes something else of an exception anywhere.
        signal.signal(number, lambda *_: os._exit(0))
    try:
        listener = socket.create_server((options.host, options.port), backlog=options.backlog)
    except (OSError, OverflowError, TypeError) as error:
        sys.exit(f"cannot listen on {options.host}:{options.port}: {error}")
    if prepare:
        prepare(listener, options)
    print("listening on %s:%d" % listener.getsockname(), flush=True)
    serve(listener, options)


def parse(description, more):
    parser = argparse.ArgumentParser(description=description, usage=argparse.SUPPRESS)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3267, help="0 takes a free one")
    parser.add_argument("--backlog", type=int, default=5, help="what listen() is given")
    parser.add_argument("--wait", type=float, default=0, help="seconds each greeting waits")
    parser.add_argument("--compute", type=float, default=0, help="seconds each one computes")
    parser.add_argument("--quiet", action="store_true", help="log only warnings and errors")
    for name, settings in more.items():
        parser.add_argument(f"--{name}", **settings)
    options = parser.parse_args()
    if not (options.host and 0 <= options.wait <= 3600 and 0 <= options.compute <= 3600):
        parser.error("--host takes an address, --wait and --compute 0 to 3600 seconds")
    logging.basicConfig(format="%(message)s", level="WARNING" if options.quiet else "INFO")
    options.greet = lambda chunk: greeting(chunk, options.compute)
    return options


def end_with(parent):
    """Let this process, a child of parent (its number), end when parent ends, however it does.

    Source: prctl(2), PR_SET_PDEATHSIG, which is 1 in <linux/prctl.h>.
    """
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(0)


def greeting(chunk, compute):
    if compute:
        done = time.thread_time() + compute
        while time.thread_time() < done:
            pass
    return b"Hello, " + chunk


def converse(conn, peer, options, sleep=time.sleep):
    """Greet one client until it leaves, as 02_threaded does: waiting costs nobody else."""
    logging.info("%s:%d connected", *peer)
    heard = 0
    try:
        while chunk := conn.recv(1024):
            logging.info("%s:%d said %r", *peer, chunk)
            heard += len(chunk)
            if options.wait:
                sleep(options.wait)
            conn.sendall(options.greet(chunk))
    except OSError as error:
        logging.info("%s:%d broke off: %s", *peer, error)
    logging.info("%s:%d left, %d bytes heard", *peer, heard)
