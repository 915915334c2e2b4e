"""The GIL over time: what each thread of a server does, sampled from outside.

The kernel reports for each thread of a process whether it runs, or in which system call it is
blocked (/proc/PID/task/TID/syscall, proc(5)). In CPython a thread waits for the GIL in futex
(Python/ceval_gil.c, take_gil: a condition variable of pthreads). A reader that does nothing else
samples many thousand times per second, often enough to see switch intervals of 5 ms.
"""

import contextlib
import json
import shutil
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from clients.client import Client
from clients.system import processes, procfs

RECORDED = Path(__file__).with_name("free_threaded.json")
RUNS, WAITS, BLOCKED = "runs", "waits for the GIL", "is blocked"
FREE_THREADED = ("python3.14t", "python3.13t")  # names of free-threaded Pythons


@dataclass
class ModelRun:
    """What one server did, run by one build of Python."""

    server: str
    build: str  # "with GIL" or "without GIL"
    compute: float  # seconds for each greeting: 20 users ask without a pause; 0: 20 visit instead
    throughput: float  # greetings per second; for visits the median of rounds, as cpu_us
    cpu_us: float  # CPU time of a greeting
    rss: int | None = None  # bytes


@dataclass
class FreeThreaded:
    """What servers do in a free-threaded Python."""

    python: str  # its version
    timeline: dict  # of 02_threaded without the GIL, see gil_timeline()
    models: list[ModelRun]
    when: str = ""


def sample(pid, seconds):
    """Sample the threads of a process; return {thread: [[state, began, ended], ...]}.

    thread: the kernel's number, as text; state: RUNS (it has a core, or needs only a core), WAITS,
    or BLOCKED (in any other call); began, ended: seconds since the first sample.
    """
    spans, began = defaultdict(list), time.perf_counter()
    with contextlib.ExitStack() as stack:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        files = {one.name: stack.enter_context((one / "syscall").open()) for one in tasks}
        while (at := time.perf_counter() - began) < seconds:
            for name, file in files.items():
                file.seek(0)
                now, its = state(file.read()), spans[name]
                if its:
                    its[-1][2] = at
                if not its or its[-1][0] != now:
                    its.append([now, at, at])
    return spans


def state(line):
    """Return the state of a thread from its line in /proc/PID/task/TID/syscall."""
    call = procfs.parse_syscall(line)
    return RUNS if call is None else WAITS if call.name == "futex" else BLOCKED


def gil_timeline(program, seconds=0.06, clients=3):
    """Let clients ask a server for CPU-bound work; return sample() of the threads that do it."""
    with processes.running_server(program, "--quiet", "--compute", 60) as server:
        with contextlib.ExitStack() as stack:
            for _ in range(clients):
                client = stack.enter_context(Client(*server.address))
                client.socket.sendall(b"compute for a minute")
            time.sleep(0.5)  # until all of them do
            found = sample(server.process.pid, seconds)
        server.process.kill()  # it would finish its minute
    return {name: spans for name, spans in found.items() if spans[0][0] != BLOCKED}


@contextlib.contextmanager
def run_by(python, gil, server="02_threaded"):
    """Yield a program: a server run by another Python, with its GIL (1) or without (0).

    gil: None leaves the choice to that Python, as an ordinary one has none.
    """
    with processes.temp_dir() as place:
        program = Path(place, f"gil_{gil}")
        setting = "" if gil is None else f"export PYTHON_GIL={gil}"  # docs: using/cmdline.html
        line = f'exec {python} {processes.find_server(server)} "$@"'
        program.write_text(f"#!/bin/sh\n{setting}\n{line}\n")
        program.chmod(0o755)
        yield program


def measure_models(builds, servers=()):
    """Return a ModelRun for each server, each build, and CPU-bound work and visits.

    builds: {name: (python, gil)}, see run_by(). servers: all models and loop_per_thread if none.
    """
    from . import load  # not at the top: only this needs the load comparison

    found, work = [], {"seconds": 4, "load": "no-think-time", "compute": 0.005, "backlog": 64}
    for server in servers or [*processes.models(), load.alternative("loop_per_thread")]:
        name = processes.server_name(processes.find_server(server))
        with contextlib.ExitStack() as stack:
            enter = stack.enter_context
            programs = {build: str(enter(run_by(*way, server))) for build, way in builds.items()}
            for build, program in programs.items():
                [run] = load.compare(program, users=[20], **work).runs
                costs = run.throughput, run.usage.cpu_us_per_greeting, run.usage.rss_peak
                found.append(ModelRun(name, build, work["compute"], *costs))
            paired = load.bench(*programs.values(), connections=20, load="visit")
            for build, one in zip(programs, paired, strict=True):
                rate, cpu = (load.benchmark.median(one, what) for what in ("throughput", "cpu"))
                found.append(ModelRun(name, build, 0, rate, 1e6 * cpu))
    return found


def measure(python, servers=(), ordinary=None):
    """Return the FreeThreaded of a free-threaded Python; "with GIL": an ordinary one's, if any."""
    version = processes.run_captured([python, "-V"]).stdout.removeprefix("Python ").strip()
    builds = {"with GIL": (ordinary, None) if ordinary else (python, 1), "without GIL": (python, 0)}
    models = measure_models(builds, servers)
    with run_by(python, 0) as program:
        return FreeThreaded(version, gil_timeline(program), models)


def free_threaded():
    """Return (FreeThreaded, its source): measured now where there is such a Python, or recorded."""
    if python := next(filter(None, map(shutil.which, FREE_THREADED)), None):
        return measure(python, ["02_threaded"]), "measured now"
    found = json.loads(RECORDED.read_text())
    found["models"] = [ModelRun(**one) for one in found["models"]]
    return FreeThreaded(**found), f"recorded {found['when']}"
