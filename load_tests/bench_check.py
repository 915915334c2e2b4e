"""Check the benchmark: the same servers measured with a client in C, and with another clock.

.venv/bin/python -m load_tests.bench_check

bench.py has a generator in Python and reads the clock of clock_getcpuclockid(3). Here
harness/bench_client.c, compiled with cc, sends the requests, each server is started again for each
round, and its CPU time is what /proc/PID/stat counts (psutil). The ratios should be the same.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from clients.console.argtypes import command_parser, number, numbers
from clients.system import processes
from clients.system.processes import LaunchError
from load_tests import bench

SOURCE = Path(__file__).with_name("harness") / "bench_client.c"
ALTERNATIVES = ["uvloop_protocol", "asyncio_protocol", "asyncio_streams", "gevent_server"]
SERVERS = ["03_epoll", *(f"load_tests/alternatives/{name}.py" for name in ALTERNATIVES)]


def options():
    """Return the command line's options; specs are bench.py's. Exits if they make no sense."""
    parser = command_parser(__doc__)
    parser.add_argument("servers", nargs="*", default=SERVERS, metavar="SERVER")
    connections = numbers(int, 1, 10_000)
    parser.add_argument("--connections", type=connections, default=[10, 100, 1000])
    parser.add_argument("--rounds", type=number(int, 1, 100), default=5)
    parser.add_argument("--greetings", type=number(int, 1000, 10**8), default=100_000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    args = parser.parse_args()
    args.specs = bench.options(args.servers).specs
    return args


def compile_client(folder):
    """Compile bench_client.c into a folder; raises LaunchError without a compiler."""
    program = Path(folder, "bench_client")
    line = [os.environ.get("CC", "cc"), "-O2", "-Wall", "-o", program, SOURCE]
    try:
        done = processes.run_captured(line, timeout=60, env=os.environ | {"TMPDIR": str(folder)})
    except LaunchError as error:
        raise LaunchError(f"there is no C compiler {line[0]} (apt-get install gcc)") from error
    if done.returncode:
        raise LaunchError(f"{SOURCE.name} does not compile: {done.stderr}")
    return program


def cost_in_c(client, spec, connections, greetings):
    """Start a server, warm it, let the client greet; return its CPU seconds per greeting."""
    cores = sorted(os.sched_getaffinity(0))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with bench.pinned_server(spec, cores[:1]) as server:
        line = [str(client), *map(str, server.address), str(connections), str(greetings)]
        with processes.spawn(line, **pipes, text=True, errors="replace") as process:
            process.cpu_affinity(cores[-1:])
            process.stdout.readline()  # all are connected
            before = processes.sum_over_tree(server.process, cpu_seconds)
            with contextlib.suppress(BrokenPipeError):  # no buffer, which would complain later
                os.write(process.stdin.fileno(), b"\n")
            if not process.stdout.readline():
                raise LaunchError(f"{spec.name}: {process.stderr.read().strip()}")
            used = processes.sum_over_tree(server.process, cpu_seconds) - before
    if not used:
        raise LaunchError(f"{spec.name}: {greetings} greetings are too few to see what they cost")
    return used / greetings


def cpu_seconds(process):
    """Return the CPU time of a process and of its children that have ended."""
    return sum(process.cpu_times()[:4])  # in hundredths of a second (proc(5), stat)


def measure(args, client, connections, console):
    """Return {server: [CPU seconds per greeting by the client in C, by bench.py]}, medians."""
    costs = {spec.name: [] for spec in args.specs}
    for _ in range(args.rounds):
        for spec in args.specs:
            costs[spec.name].append(cost_in_c(client, spec, connections, args.greetings))
    # A round begins with all requests at once; with thousands it must be long to hide that.
    seconds = max(0.3, connections / 2500)
    rounds = f"--rounds={3 * args.rounds}", f"--seconds={seconds}"
    block = bench.measure(bench.options([*args.servers, *rounds]), connections, console)
    by_bench = {one.server: bench.median(one, "cpu") for one in block.servers}
    return {name: [statistics.median(costs[name]), cost] for name, cost in by_bench.items()}


def show(found, connections, console):
    first, base = next(iter(found.items()))
    title = f"{connections:,} connections: CPU µs per greeting, and relative to {first} (1.00)"
    console.rule(title, align="left")
    names = "bench_client.c", "bench.py"
    table = bench.empty_table("server", *names, *names, "differ by")
    for name, costs in found.items():
        in_c, by_bench = (cost / its for cost, its in zip(costs, base, strict=True))
        texts = [f"{1e6 * cost:.2f}" for cost in costs] + [f"{in_c:.2f}", f"{by_bench:.2f}"]
        table.add_row(name, *texts, f"{in_c / by_bench - 1:+.0%}")
    console.print(table)
    console.print()


def main():
    processes.require_linux()
    args, all_found = options(), {}
    with processes.temp_dir() as folder:

        def step(connections, console):
            client = compile_client(folder)
            all_found[connections] = measure(args, client, connections, console)
            show(all_found[connections], connections, console)

        return bench.run(args, step, lambda: json.dumps(all_found))


if __name__ == "__main__":
    sys.exit(main())
