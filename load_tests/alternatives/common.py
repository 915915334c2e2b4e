"""What the alternatives share: their options, the application, the start and the end.

An alternative passes run() a function start(listener, options): it prepares, before the line
"listening on ..." is printed, and returns the function that serves. The listener is bound and
listens. Of the options, it needs greet(chunk), which returns the answer and includes --compute;
wait (seconds that each greeting waits, in the alternative's own way); backlog; and its own ones.
"""

import argparse
import ctypes
import logging
import os
import signal
import socket
import sys
import time


def listen(options):
    """Return a new listening socket."""
    reuse_port = getattr(options, "reuse_port", False)
    address = options.host, options.port
    return socket.create_server(address, backlog=options.backlog, reuse_port=reuse_port)


def run(start, description, listen=listen, **more):
    """Run an alternative until SIGTERM or Ctrl-C.

    description: its docstring. more: its own options, {name: keywords of add_argument()}.
    """
    options = parse(description, more)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not KeyboardInterrupt: each framework makes something else of an exception anywhere.
        signal.signal(number, lambda *_: os._exit(0))
    try:
        listener = listen(options)
    except (OSError, OverflowError, TypeError) as error:
        sys.exit(f"cannot listen on {options.host}:{options.port}: {error}")
    address = listener.getsockname()
    serve = start(listener, options)
    print("listening on %s:%d" % address, flush=True)
    serve()


def parse(description, more):
    show = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(None, argparse.SUPPRESS, description, formatter_class=show)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3267, help="0 takes a free one")
    parser.add_argument("--backlog", type=int, default=5, help="what listen() is given")
    parser.add_argument("--wait", type=float, default=0, help="seconds each greeting waits")
    parser.add_argument("--compute", type=float, default=0, help="seconds each one computes")
    parser.add_argument("--quiet", action="store_true", help="log only warnings and errors")
    for name, settings in more.items():
        parser.add_argument("--" + name.replace("_", "-"), **settings)
    options = parser.parse_args()
    if not (options.host and 0 <= options.wait <= 3600 and 0 <= options.compute <= 3600):
        parser.error("--host takes an address, --wait and --compute 0 to 3600 seconds")
    logging.basicConfig(format="%(message)s", level="WARNING" if options.quiet else "INFO")
    options.greet = lambda chunk: greeting(chunk, options.compute)
    return options


def end_with(parent):
    """End this process, a child of parent (a process number), when parent ends, for any reason.

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


def converse(conn, remote, options, sleep=time.sleep):
    """Greet one client until it leaves, as 02_threaded does: a wait blocks no other client."""
    logging.info("%s:%d connected", *remote)
    bytes_received = 0
    try:
        while chunk := conn.recv(1024):
            logging.info("%s:%d said %r", *remote, chunk)
            bytes_received += len(chunk)
            if options.wait:
                sleep(options.wait)
            conn.sendall(options.greet(chunk))
    except OSError as error:
        logging.info("%s:%d connection lost: %s", *remote, error)
    logging.info("%s:%d left, %d bytes received", *remote, bytes_received)
