"""The client in C with which the benchmark checks itself: bench_client.c, compiled with cc.

It does not share the clock either: the CPU time is what /proc/PID/stat counts (psutil).
"""

import contextlib
import os
import subprocess
from pathlib import Path

from clients.system import processes
from clients.system.processes import LaunchError

SOURCE = Path(__file__).with_name("bench_client.c")


def compile_client(folder):
    """Compile bench_client.c into a folder, return the program. Raises LaunchError."""
    program = Path(folder, "bench_client")
    line = [os.environ.get("CC", "cc"), "-O2", "-Wall", "-o", program, SOURCE]
    try:
        done = processes.run_captured(line, timeout=60, env=os.environ | {"TMPDIR": str(folder)})
    except LaunchError as error:
        raise LaunchError(f"there is no C compiler {line[0]} (apt-get install gcc)") from error
    if done.returncode:
        raise LaunchError(f"{SOURCE.name} does not compile: {done.stderr}")
    return program


def cost(client, server, connections, greetings, cores):
    """Let the client greet a server; return the server's CPU seconds per greeting.

    cores: of the client. Raises LaunchError if the server does not answer as it should.
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    line = [str(client), *map(str, server.address), str(connections), str(greetings)]
    with processes.spawn(line, **pipes, text=True, errors="replace") as process:
        process.cpu_affinity(cores)
        process.stdout.readline()  # all are connected
        before = processes.sum_over_tree(server.process, cpu_seconds)
        with contextlib.suppress(BrokenPipeError):  # no buffer, which would complain later
            os.write(process.stdin.fileno(), b"\n")
        if not process.stdout.readline():
            raise LaunchError(f"{server.name}: {process.stderr.read().strip()}")
        used = processes.sum_over_tree(server.process, cpu_seconds) - before
    if not used:
        raise LaunchError(f"{server.name}: {greetings} greetings are too few to see their cost")
    return used / greetings


def cpu_seconds(process):
    """Return the CPU time of a process and of its children that have ended."""
    return sum(process.cpu_times()[:4])  # in hundredths of a second (proc(5), stat)
