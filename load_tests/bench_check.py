"""Check the benchmark: the same servers measured with a client in C, and with another clock.

.venv/bin/python -m load_tests.bench_check

bench.py has a generator in Python and reads the clock of clock_getcpuclockid(3). Here
harness/bench_client.c, compiled with cc, sends the requests, each server is started again for each
round, and its CPU time is what /proc/PID/stat counts (psutil). The ratios should be the same.
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
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from clients.console.argtypes import number, numbers
from clients.system.processes import (
    ROOT,
    LaunchError,
    distinct_names,
    find_server,
    module_command,
    require_linux,
    run_captured,
    running_server,
    spawn,
    sum_over_tree,
    temp_dir,
)
from load_tests.bench import median
from load_tests.harness.files import (
    CannotWrite,
    Screen,
    ensure_file_writable,
    lines,
    save_json,
)
from load_tests.harness.monitor import pin
from load_tests.harness.rounds import from_json
from load_tests.harness.warm import warm

SOURCE = Path(__file__).with_name("harness") / "bench_client.c"
ALTERNATIVES = ["uvloop_protocol", "asyncio_protocol", "asyncio_streams", "gevent_server"]
SERVERS = ["03_epoll", *(f"load_tests/alternatives/{name}.py" for name in ALTERNATIVES)]


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a server per request: the medians of both ways."""

    bench_client: float
    bench: float


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
        args.programs = [find_server(name) for name in args.servers]
    except LaunchError as error:
        parser.error(lines(str(error)))
    args.names = distinct_names(args.programs)
    return args


def compile_client(folder):
    """Compile bench_client.c into a folder; raises LaunchError without a compiler."""
    program = Path(folder, "bench_client")
    line = [os.environ.get("CC", "cc"), "-O2", "-Wall", "-o", program, SOURCE]
    try:
        done = run_captured(line, timeout=60, env=os.environ | {"TMPDIR": str(folder)})
    except LaunchError as error:
        raise LaunchError(f"there is no C compiler {line[0]} (apt-get install gcc)") from error
    if done.returncode:
        raise LaunchError(f"{SOURCE.name} does not compile: {done.stderr}")
    return program


def cost_in_c(client, name, program, connections, greetings):
    """Start a server, warm it, let the client greet; return its CPU seconds per greeting."""
    cores = sorted(os.sched_getaffinity(0))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with running_server(program, "--quiet", "--backlog", 4096) as server:
        pin(server.process, cores[:1])
        warm(server.address)
        line = [str(client), *map(str, server.address), str(connections), str(greetings)]
        with spawn(line, **pipes, text=True, errors="replace") as process:
            process.cpu_affinity(cores[-1:])
            process.stdout.readline()  # all are connected
            before = sum_over_tree(server.process, cpu_seconds)
            with contextlib.suppress(BrokenPipeError):  # no buffer, which would complain later
                os.write(process.stdin.fileno(), b"\n")
            if not process.stdout.readline():
                raise LaunchError(f"{name}: {process.stderr.read().strip()}")
            used = sum_over_tree(server.process, cpu_seconds) - before
    if not used:
        raise LaunchError(f"{name}: {greetings} greetings are too few to see what they cost")
    return used / greetings


def cpu_seconds(process):
    """Return the CPU time of a process and of its children that have ended.

    The kernel counts it in hundredths of a second (proc(5), stat).
    """
    return sum(process.cpu_times()[:4])


def costs_by_bench(args, connections):
    """Return [CPU seconds per greeting, the median of bench.py's rounds, for each server]."""
    with temp_dir() as folder:
        file = Path(folder, "bench.json")
        # A round begins with all requests at once; with thousands it must be long to hide that.
        seconds = max(0.3, connections / 2500)
        more = ("--connections", connections, "--rounds", 3 * args.rounds, "--seconds", seconds)
        programs = [shlex.quote(str(program)) for program in args.programs]
        line = module_command("load_tests.bench", *programs, *more, "--json", file)
        done = run_captured(line, cwd=ROOT, timeout=900)
        if done.returncode:
            raise LaunchError(f"bench failed: {done.stderr.strip()}")
        [block] = from_json(file.read_text())
    return [median(one, "cpu") for one in block.servers]


def measure(args, client, connections):
    """Return {server: Cost}."""
    in_c = {name: [] for name in args.names}
    for _ in range(args.rounds):
        for name, program in zip(args.names, args.programs, strict=True):
            cost = cost_in_c(client, name, program, connections, args.greetings)
            in_c[name].append(cost)
    by_bench = costs_by_bench(args, connections)
    return {
        name: Cost(statistics.median(costs), cost)
        for (name, costs), cost in zip(in_c.items(), by_bench, strict=True)
    }


def show(found, connections, console):
    first, base = next(iter(found.items()))
    title = f"{connections:,} connections: CPU µs per greeting, and relative to {first} (1.00)"
    console.rule(title, align="left")
    table = Table(box=None, pad_edge=False)
    table.add_column("server")
    for name in ("bench_client.c", "bench.py", "bench_client.c", "bench.py", "differ by"):
        table.add_column(name, justify="right")
    for name, cost in found.items():
        in_c, by_bench = cost.bench_client / base.bench_client, cost.bench / base.bench
        costs = [f"{1e6 * each:.2f}" for each in (cost.bench_client, cost.bench)]
        ratios = [f"{each:.2f}" for each in (in_c, by_bench)]
        table.add_row(name, *costs, *ratios, f"{in_c / by_bench - 1:+.0%}")
    console.print(table)
    console.print()


def main():
    require_linux()
    args, console, all_found, failed = options(), Screen(), {}, None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the children, too
    try:
        ensure_file_writable(args.json)
    except CannotWrite as error:
        return lines(str(error))
    try:
        with temp_dir() as folder:
            client = compile_client(folder)
            for connections in args.connections:
                found = measure(args, client, connections)
                all_found[connections] = {name: asdict(cost) for name, cost in found.items()}
                show(found, connections, console)
    except LaunchError as error:
        failed = str(error)
    except KeyboardInterrupt:
        failed = "interrupted"
    return save_json(failed, args.json, json.dumps(all_found))


if __name__ == "__main__":
    sys.exit(main())
