"""All cores: an event loop in each of several processes, which share the listening socket.

Run it: python3 load_tests/alternatives/prefork.py --processes 2 --port 3267

A new connection wakes every loop that sleeps; the first to call accept() gets it, the others get
EAGAIN and sleep again (thundering herd).
"""

import logging
import os
import select
import sys
import time

import selectors_loop
from common import end_with, run

PROCESSES = {"type": int, "default": os.cpu_count(), "help": "how many (default: as many as cores)"}


def start_workers(listener, options):
    if not hasattr(select, "epoll"):
        sys.exit("this needs Linux (epoll, prctl): run it in a container")
    options.selector = "epoll"
    for _ in range(options.processes):
        start_worker(listener, options)


def start_worker(listener, options):
    parent = os.getpid()
    if os.fork() == 0:
        end_with(parent)
        selectors_loop.Loop(listener, options).run()


def serve(listener, options):
    """Replace each worker that ends."""
    while True:
        pid, status = os.wait()
        logging.warning("worker %d ended (wait status %d); starting another", pid, status)
        time.sleep(0.1)  # workers that end at once do not fill the machine
        start_worker(listener, options)


if __name__ == "__main__":
    run(serve, __doc__, start_workers, processes=PROCESSES)
