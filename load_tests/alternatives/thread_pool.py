"""Thread pool: at most --threads clients are served at a time, the others wait for a thread.

Run it: python3 load_tests/alternatives/thread_pool.py --threads 10 --port 3267
"""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

from common import converse, run


def start(listener, options):
    pool = ThreadPoolExecutor(options.threads)

    def serve():
        while True:
            try:
                conn, remote = listener.accept()
                pool.submit(handle, conn, remote)
            except OSError as error:
                logging.warning("cannot accept: %s; trying again in a second", error)
                time.sleep(1)
            except RuntimeError as error:  # the client is in the pool's queue all the same
                logging.warning("%s:%d waits for one of the existing threads: %s", *remote, error)

    def handle(conn, remote):
        with conn:
            converse(conn, remote, options)

    return serve


if __name__ == "__main__":
    run(start, __doc__, threads={"type": int, "default": 10, "help": "how many"})
