"""Event loop that hands I/O-bound and CPU-bound work to a thread pool or a process pool.

Run it: python3 load_tests/alternatives/loop_with_pool.py --compute 0.01 --workers 2 --port 3267

Only the loop talks to clients. Without --wait and --compute there is nothing to hand over.
"""

import asyncio
import contextlib
import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import asyncio_streams
from common import end_with, greeting, run

WORKERS = {"type": int, "help": "None: 100 threads, or if it computes a process for each core"}


def start(listener, options):
    if not (options.wait or options.compute):
        return asyncio_streams.start(listener, options)
    pool = start_pool(listener, options)

    def answer(chunk):
        task = pool, work, chunk, options.wait, options.compute
        return asyncio.get_running_loop().run_in_executor(*task)

    return asyncio_streams.start(listener, options, answer)


def start_pool(listener, options):
    """Return the pool, when all its workers run, before the first client comes.

    A fork copies every open socket. While a copy is open in a worker, a connection that the loop
    has closed does not end.
    """
    if not options.compute:
        workers = options.workers or 100
        pool, all_run = ThreadPoolExecutor(workers), threading.Barrier(workers)
        list(pool.map(lambda _: all_run.wait(10), range(workers)))
    else:
        fork, workers = multiprocessing.get_context("fork"), options.workers or os.cpu_count()
        pool = ProcessPoolExecutor(workers, fork, in_worker, (os.getpid(), listener))
        pool.submit(os.getpid).result()  # the first task starts all of them
        threading.Thread(target=end_with_a_worker, daemon=True).start()
    return pool


def in_worker(parent, listener):
    end_with(parent)
    listener.close()


def end_with_a_worker():
    """End the server with a worker: its pool is broken, a new worker would copy clients' sockets.

    No handler of SIGCHLD, which Python may run only when the loop wakes up again (signal).
    """
    with contextlib.suppress(ChildProcessError):  # the pool has noticed first, and has ended all
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    print("a worker has ended, and so does the server", file=sys.stderr)
    os._exit(1)


def work(chunk, wait, compute):
    if wait:
        time.sleep(wait)
    return greeting(chunk, compute)


if __name__ == "__main__":
    run(start, __doc__, workers=WORKERS)
