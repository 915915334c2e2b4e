"""Event loop that hands work that waits or computes to a pool of threads, or of processes.

Run it: python3 load_tests/alternatives/loop_with_pool.py --pool processes --workers 2 --port 3267

Only the loop talks to clients. Without --wait and --compute there is nothing to hand over.
"""

import asyncio
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from asyncio_streams import main
from common import end_with, greeting, run

POOL = {"choices": ["threads", "processes"], "help": "default: processes if it computes"}
WORKERS = {"type": int, "help": "default: 100 threads, or a process for each core"}


def serve(listener, options):
    asyncio.run(
        main(listener, options, in_pool(options) if options.wait or options.compute else None)
    )


def in_pool(options):
    """Return a coroutine function that answers a chunk, and lets the pool do the work."""
    if (options.pool or ("processes" if options.compute else "threads")) == "threads":
        pool = ThreadPoolExecutor(options.workers or 100)
    else:  # fork: a child of this process can be told to end with it
        fork, workers = multiprocessing.get_context("fork"), options.workers or os.cpu_count()
        pool = ProcessPoolExecutor(workers, fork, end_with, (os.getpid(),))

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
