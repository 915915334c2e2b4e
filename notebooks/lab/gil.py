"""Who has the interpreter lock: what each thread of a server does, looked at from outside.

The kernel tells for each thread of a process whether it runs, or in which system call it sleeps
(/proc/PID/task/TID/syscall, proc(5)). CPython lets a thread wait for the interpreter lock in futex
(Python/ceval_gil.c, take_gil: a condition variable of pthreads). A reader that does nothing else
looks many thousand times a second, often enough to see turns of 5 ms.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from clients.client import Client
from clients.system import processes, procfs

from . import load

RECORDED = Path(__file__).with_name("free_threaded.json")
RUNS, WAITS, SLEEPS = "runs", "waits for the lock", "sleeps"
VERSION = "import platform; print(platform.python_version())"
FREE = ("python3.14t", "python3.13t")  # the names of Pythons without the lock


def look(pid, seconds):
    """Look for so many seconds; return {thread: [[state, began, ended], ...]}.

    thread: the kernel's number, as text; state: RUNS (it has a core, or wants one and no lock),
    WAITS or SLEEPS (in any other call); began, ended: seconds since the first look.
    """
    tasks = Path(f"/proc/{pid}/task").iterdir()
    files = {task.name: os.open(task / "syscall", os.O_RDONLY) for task in tasks}
    spans, began = {name: [] for name in files}, time.perf_counter()
    try:
        while (at := time.perf_counter() - began) < seconds:
            for name, file in files.items():
                now = state(os.pread(file, 128, 0).decode())
                if spans[name]:
                    spans[name][-1][2] = at
                if not spans[name] or spans[name][-1][0] != now:
                    spans[name].append([now, at, at])
    finally:
        for file in files.values():
            os.close(file)
    return spans


def state(line):
    """Return what a line of /proc/PID/task/TID/syscall says of the thread."""
    call = procfs.parse_syscall(line)
    return RUNS if call is None else WAITS if call.name == "futex" else SLEEPS


def turns(program, seconds=0.06, clients=3):
    """Let three clients of a server ask for work that computes; return look() at its threads."""
    with processes.running_server(program, "--quiet", "--compute", 60) as server:
        with contextlib.ExitStack() as stack:
            for _ in range(clients):
                client = stack.enter_context(Client(*server.address))
                client.socket.sendall(b"compute for a minute")
            time.sleep(0.5)  # until all of them do
            found = look(server.process.pid, seconds)
        server.process.kill()  # it would finish its minute
    return {name: spans for name, spans in found.items() if spans[0][0] != SLEEPS}


@contextlib.contextmanager
def run_by(python, lock):
    """Yield a program: 02_threaded run by another Python, with its interpreter lock or without."""
    with processes.temp_dir() as place:
        program = Path(place, "with_lock" if lock else "without_lock")
        setting = f"export PYTHON_GIL={int(lock)}"  # docs.python.org/3/using/cmdline.html
        line = f'exec {python} {processes.find_server("02_threaded")} "$@"'
        program.write_text(f"#!/bin/sh\n{setting}\n{line}\n")
        program.chmod(0o755)
        yield program


def measure(python):
    """Return what a free-threaded Python does with its lock and without, plain data.

    {"python": its version, "turns": {"with": turns(), "without": turns()}, "rates": greetings a
    second that 02_threaded gives 20 users who do not think, each greeting computing for 5 ms}.
    """
    done = subprocess.run([python, "-c", VERSION], capture_output=True, text=True, check=True)
    found = {"python": done.stdout.strip(), "turns": {}, "rates": {}}
    work = {"users": 20, "seconds": 4, "load": "no-think-time", "compute": 0.005, "backlog": 64}
    for word, lock in (("with", True), ("without", False)):
        with run_by(python, lock) as program:
            found["turns"][word] = turns(program)
            [run] = load.compare(str(program), **work).runs
            found["rates"][word] = run.throughput
    return found


def free_threaded():
    """Return measure() of a Python without the lock: live where there is one, else recorded."""
    if python := next(filter(None, map(shutil.which, FREE)), None):
        return measure(python) | {"source": "measured now"}
    data = json.loads(RECORDED.read_text())
    return data | {"source": f"recorded {data['when']}"}
