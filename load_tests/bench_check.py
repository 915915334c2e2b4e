"""Check the benchmark: the same servers asked by a program in C, and another clock.

.venv/bin/python -m load_tests.bench_check

bench.py asks with a generator in Python and reads the clock of clock_getcpuclockid(3). Here
harness/bench_client.c asks, compiled with cc, each server is started again for each round, and
its CPU time is what /proc/PID/stat counts (psutil). Both ways should give the same ratios.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
from pathlib import Path

from rich.table import Table

from clients.console.argtypes import number, numbers
from clients.system.processes import (
    ROOT,
    LaunchError,
    find,
    names_of,
    run_captured,
    running_server,
    spawn,
    sum_over_tree,
    temp_dir,
    tool,
)
from load_tests.harness.files import (
    CannotWrite,
    Screen,
    ended,
    lines,
    make_sure_of_file,
    numbered,
)
from load_tests.harness.monitor import pin
from load_tests.harness.warm import warm

ASKER = Path(__file__).with_name("harness") / "bench_client.c"
PEERS = ["uvloop_protocol", "asyncio_protocol", "asyncio_streams", "gevent_server"]
SERVERS = ["03_epoll", *(f"load_tests/alternatives/{name}.py" for name in PEERS)]


def options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("servers", nargs="*", default=SERVERS, metavar="SERVER")
    connections = numbers(int, 1, 10_000)
    parser.add_argument("--connections", type=connections, default=[10, 100, 1000])
    parser.add_argument("--rounds", type=number(int, 1, 100), default=5)
    parser.add_argument("--greetings", type=number(int, 1000, 10**8), default=100_000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    args = parser.parse_args()
    try:
        args.programs = [find(name) for name in args.servers]
    except LaunchError as error:
        parser.error(lines(str(error)))
    args.names = numbered(names_of(args.programs))
    return args


def compiled(place):
    """Compile the asker into the folder place; raises LaunchError without a compiler."""
    program = Path(place, "asker")
    line = [os.environ.get("CC", "cc"), "-O2", "-Wall", "-o", program, ASKER]
    try:
        done = run_captured(line, timeout=60, env=os.environ | {"TMPDIR": str(place)})
    except LaunchError as error:
        raise LaunchError(f"there is no C compiler {line[0]} (apt-get install gcc)") from error
    if done.returncode:
        raise LaunchError(f"{ASKER.name} does not compile: {done.stderr}")
    return program


def asked_in_c(asker, name, program, connections, greetings):
    """Start a server, warm it, let the asker ask; return its CPU time in seconds a greeting."""
    cores = sorted(os.sched_getaffinity(0))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with running_server(program, "--quiet", "--backlog", 4096) as server:
        pin(server.process, cores[:1])
        warm(server.address)
        line = [str(asker), *map(str, server.address), str(connections), str(greetings)]
        with spawn(line, **pipes, text=True, errors="replace") as process:
            process.cpu_affinity(cores[-1:])
            process.stdout.readline()  # all are connected
            before = sum_over_tree(server.process, spent)
            with contextlib.suppress(BrokenPipeError):  # no buffer, which would complain later
                os.write(process.stdin.fileno(), b"\n")
            if not process.stdout.readline():
                raise LaunchError(f"{name}: {process.stderr.read().strip()}")
            used = sum_over_tree(server.process, spent) - before
    if not used:
        raise LaunchError(f"{name}: {greetings} greetings are too few to see what they cost")
    return used / greetings


def spent(process):
    """Return the seconds of CPU time that a process and its children that have ended have used.

    The kernel counts them to a hundredth (proc(5), stat).
    """
    return sum(process.cpu_times()[:4])


def blasted(args, connections):
    """Return the same from bench.py: {server: CPU seconds a greeting, the median}."""
    with temp_dir() as place:
        file = Path(place, "blast.json")
        # A round begins with all asking at once; with thousands it must be long to hide that.
        seconds = max(0.3, connections / 2500)
        more = ("--connections", connections, "--rounds", 3 * args.rounds, "--seconds", seconds)
        programs = [shlex.quote(str(program)) for program in args.programs]
        line = tool("load_tests.bench", *programs, *more, "--json", file)
        done = run_captured(line, cwd=ROOT, timeout=900)
        if done.returncode:
            raise LaunchError(f"blast failed: {done.stderr.strip()}")
        [block] = json.loads(file.read_text())["blocks"]
    return {
        name: statistics.median(each["cpu"] for each in one["rounds"])
        for name, one in zip(args.names, block["servers"], strict=True)
    }


def measure(args, asker, connections):
    """Return {server: (CPU seconds a greeting asked in C, the same by bench.py)}."""
    ours = {name: [] for name in args.names}
    for _ in range(args.rounds):
        for name, program in zip(args.names, args.programs, strict=True):
            cost = asked_in_c(asker, name, program, connections, args.greetings)
            ours[name].append(cost)
    theirs = blasted(args, connections)
    return {name: (statistics.median(costs), theirs[name]) for name, costs in ours.items()}


def show(found, connections, console):
    first = next(iter(found))
    console.rule(f"{connections:,} connections: CPU µs of a greeting, over {first}", align="left")
    table = Table(box=None, pad_edge=False)
    table.add_column("server")
    for name in ("bench_client.c", "bench.py", "bench_client.c", "bench.py", "differ by"):
        table.add_column(name, justify="right")
    for name, costs in found.items():
        over = [cost / base for cost, base in zip(costs, found[first], strict=True)]
        texts = [f"{1e6 * cost:.2f}" for cost in costs] + [f"{ratio:.2f}" for ratio in over]
        table.add_row(name, *texts, f"{over[0] / over[1] - 1:+.0%}")
    console.print(table)
    console.print()


def main():
    args, console, all_found, failed = options(), Screen(), {}, None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the children, too
    try:
        make_sure_of_file(args.json)
    except CannotWrite as error:
        return lines(str(error))
    try:
        with temp_dir() as place:
            asker = compiled(place)
            for connections in args.connections:
                found = all_found[connections] = measure(args, asker, connections)
                show(found, connections, console)
    except LaunchError as error:
        failed = str(error)
    except KeyboardInterrupt:
        failed = "interrupted"
    return ended(failed, args.json, json.dumps(all_found))


if __name__ == "__main__":
    sys.exit(main())
