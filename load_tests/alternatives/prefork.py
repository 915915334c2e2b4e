"""All cores: an event loop in each of some processes, which share the listening socket.

Run it: python3 load_tests/alternatives/prefork.py --processes 2 --port 3267

A newcomer wakes every loop that sleeps; the first to call accept() has it, the others are told
that nobody is there (EAGAIN) and sleep again.
"""

import os
import select
import signal
import sys

import selectors_loop
from common import end_with, run

PROCESSES = {"type": int, "default": os.cpu_count(), "help": "how many (default: as many as cores)"}


def fork(listener, options):
    if not hasattr(select, "epoll"):
        sys.exit("this needs Linux (epoll, prctl): run it in a container")
    parent, options.selector = os.getpid(), "epoll"
    for _ in range(options.processes):
        if os.fork() == 0:
            end_with(parent)
            selectors_loop.serve(listener, options)


def serve(listener, options):
    while True:
        signal.pause()


if __name__ == "__main__":
    run(serve, __doc__, fork, processes=PROCESSES)
