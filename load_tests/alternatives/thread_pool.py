"""Thread pool: at most --threads clients are served at a time, the others wait for a thread.

Run it: python3 load_tests/alternatives/thread_pool.py --threads 10 --port 3267
"""

import functools
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from common import converse, run


def start(listener, options):
    return functools.partial(serve, listener, ThreadPoolExecutor(options.threads), options)


def serve(listener, pool, options):
    while True:
        try:
            conn, remote = listener.accept()
            pool.submit(handle, conn, remote, options)
        except OSError as error:
            logging.warning("cannot accept: %s; trying again in a second", error)
            time.sleep(1)
        except RuntimeError as error:  # the client is in the pool's queue all the same
            logging.warning("%s:%d waits for one of the existing threads: %s", *remote, error)


def handle(conn, remote, options):
    with conn:
        converse(conn, remote, options)


if __name__ == "__main__":
    run(start, __doc__, threads={"type": int, "default": 10, "help": "how many"})
