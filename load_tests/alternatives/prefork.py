"""All cores: an event loop in each of several processes, which share the port.

Run it: python3 load_tests/alternatives/prefork.py --processes 2 --share exclusive --port 3267

--share inherit: all watch one listening socket. A new connection wakes every loop that sleeps; the
first to call accept() gets it, the others get EAGAIN and sleep again (thundering herd).
--share exclusive: the same socket, watched with EPOLLEXCLUSIVE: the kernel wakes one of them.
--share reuseport: a listening socket for each (SO_REUSEPORT); a hash of the addresses chooses.
"""

import functools
import logging
import os
import select
import sys
import time

import common
import selectors_loop

PROCESSES = {"type": int, "default": os.cpu_count(), "help": "how many"}
SHARE = {"choices": ["inherit", "exclusive", "reuseport"], "default": "inherit"}


def listen(options):
    options.reuse_port = options.share == "reuseport"
    return common.listen(options)


def start(listener, options):
    if not hasattr(select, "epoll"):
        sys.exit("this needs Linux (epoll, prctl): run it in a container")
    options.selector, options.port = "epoll", listener.getsockname()[1]
    listeners = [listener] * options.processes
    if options.reuse_port:
        listeners[1:] = [listen(options) for _ in listeners[1:]]
    workers = {start_worker(one, options): one for one in listeners}
    return functools.partial(replace_ended, workers, options)


def start_worker(listener, options):
    """Return the process number of a new process that serves."""
    parent, kind = os.getpid(), Exclusive if options.share == "exclusive" else selectors_loop.Loop
    if not (pid := os.fork()):
        common.end_with(parent)
        kind(listener, options).run()
    return pid


class Exclusive(selectors_loop.Loop):
    """An event loop that is one of several which watch the same listening socket."""

    def watch_listener(self):
        super().watch_listener()
        epoll = self.selector._selector  # selectors has no name for the flag
        epoll.unregister(self.listener)  # modify() does not take it, see epoll_ctl(2)
        epoll.register(self.listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)


def replace_ended(workers, options):
    """Replace each worker that ends; its listening socket, open here, keeps its accept queue.

    workers: {process number: listening socket}.
    """
    while True:
        pid, status = os.wait()
        logging.warning("worker %d ended (wait status %d); starting another", pid, status)
        time.sleep(0.1)  # workers that end at once do not fill the machine
        listener = workers.pop(pid)
        workers[start_worker(listener, options)] = listener


if __name__ == "__main__":
    common.run(start, __doc__, listen, processes=PROCESSES, share=SHARE)
