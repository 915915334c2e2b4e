"""Event loop that hands work that waits or computes to a pool of threads, or of processes.

Run it: python3 load_tests/peers/loop_with_pool.py --pool processes --workers 2 --port 3267

Only the loop talks to clients. Without --wait and --compute there is nothing to hand over.
"""

import asyncio
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from asyncio_streams import main
from common import end_with, greeting, run

POOL = {"choices": ["threads", "processes"], "default": "threads"}
WORKERS = {"type": int, "default": 32, "help": "threads or processes in the pool"}


def serve(listener, options):
    asyncio.run(
        main(listener, options, in_pool(options) if options.wait or options.compute else None)
    )


def in_pool(options):
    """Return a coroutine function that answers a chunk, and lets the pool do the work."""
    if options.pool == "threads":
        pool = ThreadPoolExecutor(options.workers)
    else:  # fork: a child of this process can be told to end with it
        fork = multiprocessing.get_context("fork")
        pool = ProcessPoolExecutor(options.workers, fork, end_with, (os.getpid(),))

    async def answer(chunk):
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, work, chunk, options.wait, options.compute)

    return answer


def work(chunk, wait, compute):
    if wait:
        time.sleep(wait)
    return greeting(chunk, compute)


if __name__ == "__main__":
    run(serve, __doc__, pool=POOL, workers=WORKERS)
