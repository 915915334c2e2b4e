"""An event loop in each of several threads, which share the listening socket.

Run it: python3 load_tests/alternatives/loop_per_thread.py --threads 2 --port 3267

With a GIL one of them runs at a time; a free-threaded Python runs them on as many cores.
"""

import os
import threading

import selectors_loop
from common import run

THREADS = {"type": int, "default": os.cpu_count(), "help": "how many"}


def start(listener, options):
    first, *others = [selectors_loop.Loop(listener, options) for _ in range(options.threads)]
    for loop in others:
        threading.Thread(target=loop.run, daemon=True).start()
    return first.run


if __name__ == "__main__":
    run(start, __doc__, selector=selectors_loop.SELECTOR, threads=THREADS)
