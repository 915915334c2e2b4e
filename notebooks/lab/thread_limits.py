"""How many threads a process can have."""

import json
import subprocess
import sys
from dataclasses import dataclass

from clients.system.processes import spawn

# The child starts threads that only sleep, until it meets a limit, and prints what it had then.
IDLE_THREADS = """
import json, os, sys, threading
end, count, error = threading.Event(), 0, None
try:
    while count < int(sys.argv[1]):
        threading.Thread(target=end.wait, daemon=True).start()
        count += 1
except (RuntimeError, MemoryError) as failure:
    error = str(failure)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
maps = sum(1 for _ in open("/proc/self/maps"))
print(json.dumps([count, error, maps, 1024 * int(status["VmSize"].split()[0])]), flush=True)
os._exit(0)
"""


@dataclass
class Threads:
    """What a process had when it could, or should, start no more threads."""

    count: int  # threads besides the first
    error: str | None  # Python's message, None if there were enough
    maps: int  # entries in the kernel's list of its memory maps
    virtual: int  # bytes of its virtual address space


def most_threads(enough):
    """Start idle threads in a process of its own, up to enough; return the Threads."""
    line = [sys.executable, "-c", IDLE_THREADS, str(enough)]
    with spawn(line, stdout=subprocess.PIPE, text=True) as process:
        return Threads(*json.loads(process.communicate(timeout=300)[0]))
