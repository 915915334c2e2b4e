"""Watch a server from outside while it is under load: its CPU time, memory and queues."""

import contextlib
import os
import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from clients.system import processes, procfs
from clients.system.processes import process_tree, require_access, sum_over_tree
from load_tests.harness.results import Reading

KERNEL = ("Slab", "KernelStack", "PageTables")  # of /proc/meminfo, in KiB (proc(5))


@contextlib.contextmanager
def watching(process, port, every=0.5):
    """Yield a list to which a Reading of process is added every `every` seconds, and at the end.

    Raises LaunchError if this user may not read what the kernel knows of the process.
    """
    require_access(process)
    readings, over = [], threading.Event()

    def watch():
        while True:
            last, began = over.is_set(), time.thread_time()
            with contextlib.suppress(psutil.Error, OSError):  # the process has ended
                readings.append(reading(process, port))
            if last:
                return
            # Watching takes a tenth of a core at most.
            over.wait(max(every, 10 * (time.thread_time() - began)))

    thread = threading.Thread(target=watch, daemon=True)  # Ctrl-C may come while it starts
    thread.start()
    try:
        yield readings
    finally:
        over.set()
        thread.join()


def reading(process, port):
    """Return the Reading of a server (process) that listens on port."""
    used = Counter(rss=0, vms=0, threads=0, descriptors=0, cpu=0, switches=0)
    tree = process_tree(process)
    for one in tree:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError), one.oneshot():
            memory = one.memory_info()
            used.update(rss=memory.rss, vms=memory.vms, threads=one.num_threads())
            used.update(descriptors=one.num_fds(), cpu=cpu_seconds(one))
            used.update(switches=procfs.switches(one.pid))
    used["cpu"] += zombie_cpu_seconds(tree)
    queue, clients = sockets(port, process.pid)
    return Reading(time.monotonic(), *used.values(), queue, clients, drops(process.pid))


def pin(process, cores):
    """Pin a server, with all its threads and all that it has started, to these cores."""
    for one in process_tree(process):
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):  # it has ended
            for thread in one.threads():
                os.sched_setaffinity(thread.id, cores)


def tree_cpu_seconds(process):
    """Return the CPU time that a server and all that it has started have used since its start."""
    return sum_over_tree(process, cpu_seconds) + zombie_cpu_seconds(process_tree(process))


def cpu_seconds(process):
    """Return the CPU time of a process since its start, and of the children it has waited for.

    Only that of the children is in hundredths of a second: there is nothing finer.
    """
    times = process.cpu_times()
    return processes.cpu_seconds(process) + times.children_user + times.children_system


def zombie_cpu_seconds(tree):
    """Return the CPU time of ended children that no process has waited for."""
    total = 0.0
    for pid in procfs.zombies({one.pid for one in tree}):
        with contextlib.suppress(OSError):  # now their parent has
            total += time.clock_gettime(~pid << 3 | 2)
    return total


def loses_child_cpu(process):
    """Return True if the CPU time of some of the server's processes is lost when they end.

    The kernel adds it to the parent's when the parent waits for the child. A parent that ignores
    SIGCHLD never waits (wait(2), proc(5) on SigIgn); a daemon's parent is no process of the server.
    """
    tree = process_tree(process)
    pids = {one.pid for one in tree}
    for one in tree:
        with contextlib.suppress(psutil.NoSuchProcess, OSError):  # it has ended
            status = Path(f"/proc/{one.pid}/status").read_text()
            ignored = int(re.search(r"SigIgn:\s*(\w+)", status)[1], 16)
            is_daemon = one.pid != process.pid and one.ppid() not in pids
            if is_daemon or ignored >> signal.SIGCHLD - 1 & 1:
                return True
    return False


def kernel_memory():
    """Return the bytes that the kernel itself uses on this machine, for all processes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    amounts = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return 1024 * sum(amounts[name] for name in KERNEL)


def sockets(port, pid="self"):
    """Return the length of the accept queue on port, and {state: number of clients' sockets}.

    Only clients on this machine are seen. pid: a process in whose network namespace to look.
    """
    queue, clients = 0, Counter()
    for line in procfs.tcp_sockets(port, pid):
        if line.state == "LISTEN":
            queue = line.recv_q
        elif line.remote[1] == port:
            clients[line.state] += 1
    return queue, dict(clients)


def drops(pid="self"):
    """Return ListenDrops of a network namespace: dropped SYNs (snmp_counter.rst)."""
    return procfs.tcp_counters(Path(f"/proc/{pid}/net/netstat").read_text())["ListenDrops"]
