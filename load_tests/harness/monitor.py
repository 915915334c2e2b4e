"""Watch a server from outside while it is under load: what it costs and who waits for it.

with watching(server.process, server.address[1]) as readings:
    ...                 # readings grows by one dictionary every half second
"""

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from clients.system import procfs
from clients.system.processes import process_tree, sum_over_tree

KERNEL = ("Slab", "KernelStack", "PageTables")  # of /proc/meminfo, in KiB (proc(5))


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

    thread = threading.Thread(target=watch, daemon=True)  # Ctrl-C may come while it starts
    thread.start()
    try:
        yield readings
    finally:
        over.set()
        thread.join()


def reading(process, port):
    """Return what process, a server that listens on port, uses at this moment, with its family.

    at: seconds since the epoch; rss, vms: bytes; threads, descriptors: how many; cpu: seconds
    since its start; switches: context switches of the threads that it has now (proc(5),
    /proc/PID/task/TID/status); and what sockets() and drops() give.
    """
    used = Counter(rss=0, vms=0, threads=0, descriptors=0, cpu=0, switches=0)
    for one in process_tree(process):
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError), one.oneshot():
            memory = one.memory_info()
            used.update(rss=memory.rss, vms=memory.vms, threads=one.num_threads())
            used.update(descriptors=one.num_fds(), cpu=cpu_seconds(one))
            used.update(switches=switches(one.pid))
    return {"at": time.time(), **used, **sockets(port, process.pid), **drops(process.pid)}


def pin(process, cores):
    """Let a server, with all its threads and all that it has started, run on these cores alone."""
    for one in process_tree(process):
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):  # it has ended
            for thread in one.threads():
                os.sched_setaffinity(thread.id, cores)


def family_cpu_seconds(process):
    """Return the CPU time that a server and all that it has started have used since its start."""
    return sum_over_tree(process, cpu_seconds)


def cpu_seconds(process):
    """Return the CPU time of a process since its start, and of its children that have ended.

    /proc/PID/stat counts in hundredths of a second, too coarse for a short run, and that is what
    the children's time is known to. The clock's number is the one that clock_getcpuclockid(3)
    gives (posix-timers.h, CPUCLOCK_SCHED).
    """
    try:
        times = process.cpu_times()
        own = time.clock_gettime(~process.pid << 3 | 2)
    except OSError as error:
        raise psutil.NoSuchProcess(process.pid) from error
    return own + times.children_user + times.children_system


def forgets(process):
    """Return whether the CPU time of what a server starts is lost as it ends.

    The kernel adds it to the parent's as that waits for it, and a parent that ignores SIGCHLD never
    waits (wait(2), proc(5) on SigIgn).
    """

    def ignores(one):
        lines = Path(f"/proc/{one.pid}/status").read_text().splitlines()
        [mask] = [line.split()[1] for line in lines if line.startswith("SigIgn")]
        return int(mask, 16) >> signal.SIGCHLD - 1 & 1

    return sum_over_tree(process, ignores) > 0


def kernel_memory():
    """Return the bytes that the kernel itself uses on this machine, for all that run on it."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    amounts = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return 1024 * sum(amounts[name] for name in KERNEL)


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
    for line in procfs.tcp_sockets(port, pid):
        if line.state == "LISTEN":
            queue = line.recv_q
        elif line.remote[1] == port:
            clients[line.state] += 1
    return {"accept_queue": queue, "clients": dict(clients)}


def drops(pid="self"):
    """Return how often a full accept queue made this network namespace's kernel drop a packet.

    Source: ListenOverflows and ListenDrops in /proc/net/netstat (snmp_counter.rst).
    """
    counts = procfs.tcp_counters(Path(f"/proc/{pid}/net/netstat").read_text())
    return {name: counts[name] for name in ("ListenOverflows", "ListenDrops")}
