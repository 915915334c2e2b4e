"""Threaded server: the main thread accepts; each client gets a thread of its own.

Run it: python3 02_threaded/server.py --port 3267
"""

import argparse
import logging
import os
import signal
import socket
import sys
import threading
import time


def serve(listener, greet):
    while True:
        try:
            conn, remote = listener.accept()
        except ConnectionAbortedError:
            pass  # this client has gone already
        except OSError as error:  # out of descriptors, or another error of accept(2)
            logging.warning("cannot accept: %s; trying again in a second", error)
            time.sleep(1)
        else:
            try:
                threading.Thread(target=handle, args=(conn, remote, greet)).start()
            except RuntimeError as error:  # out of threads: reject the new connection
                logging.warning("%s:%d rejected: %s", *remote, error)
                conn.close()


def handle(conn, remote, greet):
    logging.info("%s:%d connected", *remote)
    bytes_received = 0
    with conn:
        try:
            while chunk := conn.recv(1024):  # b"" is end of file: the client sends no more
                logging.info("%s:%d said %r", *remote, chunk)
                bytes_received += len(chunk)
                conn.sendall(greet(chunk))
        except OSError as error:  # a reset ends this connection and no other
            logging.info("%s:%d connection lost: %s", *remote, error)
    logging.info("%s:%d left, %d bytes received", *remote, bytes_received)


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
