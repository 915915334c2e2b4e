"""Who has the interpreter lock: what each thread of a server does, looked at from outside.

The kernel tells for each thread of a process whether it runs, or in which system call it sleeps
(/proc/PID/task/TID/syscall, proc(5)). CPython lets a thread wait for the interpreter lock in futex
(Python/ceval_gil.c, take_gil: a condition variable of pthreads). A reader that does nothing else
looks many thousand times a second, often enough to see turns of 5 ms.
"""

import os
import time
from pathlib import Path

from clients.xray import CALLS

RUNS, WAITS, SLEEPS = "runs", "waits for the lock", "sleeps"


def look(pid, seconds):
    """Look for so many seconds; return {"spans": {thread: [[state, began, ended], ...]}, "looks"}.

    thread: the kernel's number, as text; state: RUNS (it has a core, or wants one and no lock),
    WAITS or SLEEPS (in any other call); began, ended: seconds since the first look. looks: how
    many there were of each thread in a second.
    """
    files = {
        task.name: os.open(task / "syscall", os.O_RDONLY)
        for task in Path(f"/proc/{pid}/task").iterdir()
    }
    spans, looks, began = {name: [] for name in files}, 0, time.perf_counter()
    try:
        while (at := time.perf_counter() - began) < seconds:
            looks += 1
            for name, file in files.items():
                now = state(os.pread(file, 128, 0))
                if spans[name] and spans[name][-1][0] == now:
                    spans[name][-1][2] = at
                else:
                    if spans[name]:
                        spans[name][-1][2] = at
                    spans[name].append([now, at, at])
    finally:
        for file in files.values():
            os.close(file)
    return {"spans": spans, "looks": looks / seconds}


def state(line):
    """Return what a line of /proc/PID/task/TID/syscall says of the thread."""
    first = line.split(maxsplit=1)[0]
    if first in (b"running", b"-1"):  # -1: it waits in the kernel, but in no call (a page)
        return RUNS
    return WAITS if CALLS.get(int(first)) == "futex" else SLEEPS
