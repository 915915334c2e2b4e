"""How many threads a process can have, and which limit it meets."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from clients.system.processes import spawn

# The child starts threads that only sleep, until it meets a limit, and prints what it had then.
IDLE_THREADS = """
import json, os, sys, threading
end, count = threading.Event(), 0
try:
    while count < int(sys.argv[1]):
        threading.Thread(target=end.wait, daemon=True).start()
        count += 1
    error = None
except (RuntimeError, MemoryError) as failure:
    error = str(failure)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
maps = sum(1 for _ in open("/proc/self/maps"))
print(json.dumps([count, error, maps, int(status["VmSize"].split()[0])]), flush=True)
os._exit(0)
"""


@dataclass
class Threads:
    """How many threads a process had when it stopped to start more."""

    count: int  # besides the first
    error: str | None  # Python's message, None if there were enough
    limit: str | None  # the name and the number of the limit that was met
    virtual: int  # bytes of the virtual address space


def most_threads(enough):
    """Start idle threads in a process of its own, up to enough; return the Threads."""
    line = [sys.executable, "-c", IDLE_THREADS, str(enough)]
    with spawn(line, stdout=subprocess.PIPE, text=True) as process:
        count, error, maps, virtual = json.loads(process.communicate(timeout=300)[0])
    return Threads(count, error, limit_met(count, maps) if error else None, 1024 * virtual)


def limit_met(threads, maps):
    """Return the limit that a process has met, from the numbers of its threads and memory maps.

    Source: pthread_create(3), EAGAIN, and clone(2); each stack is at least two maps, itself and
    its guard page, of which a process may have vm.max_map_count (sysctl/vm.rst).
    """
    import resource  # not at the top: Windows does not have it

    most_maps = number("/proc/sys/vm/max_map_count")
    if maps > most_maps - 3:
        return f"vm.max_map_count = {most_maps:,}"
    counts = {
        "kernel.pid_max": number("/proc/sys/kernel/pid_max"),
        "kernel.threads-max": number("/proc/sys/kernel/threads-max"),
        "RLIMIT_NPROC (ulimit -u)": resource.getrlimit(resource.RLIMIT_NPROC)[0],
        "pids.max of the cgroup": number("/sys/fs/cgroup/pids.max"),
    }
    near = {name: most for name, most in counts.items() if most and 0 < most < 1.1 * threads + 500}
    for name, most in sorted(near.items(), key=lambda pair: pair[1])[:1]:
        return f"{name} = {most:,}"
    return "memory or virtual address space (RLIMIT_AS, ulimit -v)"


def number(path):
    """Return the number in a file of /proc or /sys, None if there is none."""
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # "max" says that there is no limit
        return None
