"""All cores: an event loop in each of several processes, which share the port.

Run it: python3 load_tests/alternatives/prefork.py --processes 2 --share exclusive --port 3267

--share inherit: all watch one listening socket. A new connection wakes every loop that sleeps; the
first to call accept() gets it, the others get EAGAIN and sleep again (thundering herd).
--share exclusive: the same socket, watched with EPOLLEXCLUSIVE: the kernel wakes one of them.
--share reuseport: a listening socket for each (SO_REUSEPORT); a hash of the addresses chooses.
"""

import logging
import os
import select
import sys
import time

import common
import selectors_loop

PROCESSES = {"type": int, "default": os.cpu_count(), "help": "how many (default: as many as cores)"}
SHARE = {"choices": ["inherit", "exclusive", "reuseport"], "default": "inherit"}


def listen(options):
    options.reuse_port = options.share == "reuseport"
    return common.listen(options)


def start_workers(listener, options):
    if not hasattr(select, "epoll"):
        sys.exit("this needs Linux (epoll, prctl): run it in a container")
    options.selector, options.listener_of = "epoll", {}  # {worker's pid: its listening socket}
    options.port = listener.getsockname()[1]
    listeners = [listener] * options.processes
    if options.reuse_port:
        listeners = [listener, *(listen(options) for _ in listeners[1:])]
    for one in listeners:
        start_worker(one, options)


def start_worker(listener, options):
    parent, kind = os.getpid(), Exclusive if options.share == "exclusive" else selectors_loop.Loop
    if pid := os.fork():
        options.listener_of[pid] = listener
    else:
        common.end_with(parent)
        kind(listener, options).run()


class Exclusive(selectors_loop.Loop):
    """An event loop that is one of several which watch the same listening socket."""

    def watch_listener(self):
        super().watch_listener()
        epoll = self.selector._selector  # selectors has no name for the flag
        epoll.unregister(self.listener)  # modify() does not take it, see epoll_ctl(2)
        epoll.register(self.listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)


def serve(_, options):
    """Replace each worker that ends; its listening socket, open here, keeps its accept queue."""
    while True:
        pid, status = os.wait()
        logging.warning("worker %d ended (wait status %d); starting another", pid, status)
        time.sleep(0.1)  # workers that end at once do not fill the machine
        start_worker(options.listener_of.pop(pid), options)


if __name__ == "__main__":
    common.run(serve, __doc__, start_workers, listen, processes=PROCESSES, share=SHARE)
