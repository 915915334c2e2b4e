"""Watch a server from outside while it is under load: what it costs and who waits for it.

with watching(server.process, server.address[1]) as readings:
    ...                 # readings grows by one dictionary every half second
"""

import contextlib
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from clients.system import kernel


@contextlib.contextmanager
def watching(process, port, every=0.5):
    """Yield a list to which a reading of process is added every so many seconds, and at the end.

    A reading that costs more than a tenth of that in CPU time is followed by a longer pause.
    """
    readings, over = [], threading.Event()

    def watch():
        while True:
            last, began = over.is_set(), time.thread_time()
            with contextlib.suppress(psutil.Error, OSError):  # the process has ended
                readings.append(reading(process, port))
            if last:
                return
            over.wait(max(every, 10 * (time.thread_time() - began)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield readings
    finally:
        over.set()
        thread.join()


def reading(process, port):
    """Return what process, a server that listens on port, uses at this moment.

    at: seconds since the epoch; rss, vms: bytes; threads, descriptors: how many; cpu: seconds
    since its start; switches: context switches of the threads that it has now (proc(5),
    /proc/PID/task/TID/status); and what sockets() and drops() give.
    """
    with process.oneshot():
        memory = process.memory_info()
        return {
            "at": time.time(),
            "rss": memory.rss,
            "vms": memory.vms,
            "threads": process.num_threads(),
            "descriptors": process.num_fds(),
            "cpu": cpu_seconds(process.pid),
            "switches": switches(process.pid),
            **sockets(port, process.pid),
            **drops(process.pid),
        }


def cpu_seconds(pid):
    """Return the CPU time that a process has used since its start, to the nanosecond.

    /proc/PID/stat counts in hundredths of a second, too coarse for a short run. The clock's
    number is the one that clock_getcpuclockid(3) gives (posix-timers.h, CPUCLOCK_SCHED).
    """
    return time.clock_gettime(~pid << 3 | 2)


def switches(pid):
    """Return the context switches of all the threads of a process, wanted or not."""
    count = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            lines = status.read_text().splitlines()
            count += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return count


def sockets(port, pid="self"):
    """Return the accept queue of the listener on port, and the states of the connections to it.

    accept_queue: connections that the kernel has completed and accept() has not taken.
    clients: {state: how many of the clients' sockets, of those on this machine, are in it}.
    pid: a process in whose network namespace to look.
    """
    queue, clients = 0, Counter()
    for line in kernel.tcp(port, pid):
        if line.state == "LISTEN":
            queue = line.unread
        elif line.remote[1] == port:
            clients[line.state] += 1
    return {"accept_queue": queue, "clients": dict(clients)}


def drops(pid="self"):
    """Return how often a full accept queue made this network namespace's kernel drop a packet.

    Source: ListenOverflows and ListenDrops in /proc/net/netstat (snmp_counter.rst).
    """
    counts = kernel.counters(Path(f"/proc/{pid}/net/netstat").read_text())
    return {name: counts[name] for name in ("ListenOverflows", "ListenDrops")}
