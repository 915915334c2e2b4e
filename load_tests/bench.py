"""Benchmark greeting servers in pairs: the CPU time, throughput and latency of a request.

.venv/bin/python -m load_tests.bench 02_threaded 03_epoll
.venv/bin/python -m load_tests.bench 03_epoll load_tests/alternatives/asyncio_streams.py --rounds 9
.venv/bin/python -m load_tests.bench 03_epoll "my_server.py --pool 4"
.venv/bin/python -m load_tests.bench 03_epoll 03_epoll --connections 10 --idle 0,10000
.venv/bin/python -m load_tests.bench 03_epoll 02_threaded --load visit

The servers run at the same time and alternate, A B A B ..., so that whatever else the machine does
affects all of them. Each server has one core, its generators have another: BENCH.md says how it
measures.
"""

import contextlib
import json
import os
import pickle
import shlex
import signal
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from rich.table import Table
from rich.text import Text

from clients.console.argtypes import command_parser, number, numbers
from clients.console.formatting import count
from clients.console.printable import printable
from clients.system import processes
from clients.system.processes import LaunchError
from clients.system.procfs import usable_cores
from load_tests.harness.files import CannotWrite, Screen, ensure_writable, lines, save
from load_tests.harness.monitor import kernel_memory, loses_child_cpu, pin, tree_cpu_seconds
from load_tests.harness.runs import warm
from load_tests.harness.stats import nearest_rank, quartiles

BACKLOG = 4096  # no SYN is dropped, however many connections come at once
WARM_UP = 0.2  # seconds of a first round that does not count
DESCRIPTORS = 100  # what a process needs besides its connections
NUMBERS = 1_000_000  # how many numbers each generator has for its clients
SATURATED = 0.9  # of its core: a process that used less was waiting for the rest of the time
RATIOS = ("cpu", "throughput", "p99")
LOADS = {"greet": "greetings", "visit": "visits"}
SCHEMA = 3  # of the JSON file: it changes whenever a key does


class BenchError(RuntimeError):
    """A server did not do what it should, and what it did."""


@dataclass(frozen=True)
class Spec:
    """A server to be measured, as the command line names it."""

    name: str  # in the tables, distinct
    program: Path
    options: list[str]  # more than those of every server
    idle: int  # silent connections


@dataclass(frozen=True, slots=True)
class Round:
    """One server's round: all of its generators together. Times are in seconds."""

    answered: int  # requests
    seconds: float  # of the slowest generator
    throughput: float  # requests per second
    p50: float  # latencies
    p99: float
    max: float
    cpu: float  # CPU time of the server per request
    busy: float  # share of one core that the server used
    generator_busy: float  # share of its core that the busiest generator used


@dataclass(frozen=True, slots=True)
class IdleCost:
    """What one idle connection costs."""

    resident: float  # KiB in the server's processes
    kernel: float  # KiB in the kernel of this machine, for both ends of the connection


@dataclass(slots=True)
class Measured:
    """What one server did with one number of connections."""

    connections: int
    server: str  # its name in the tables
    idle: int  # connections that were open besides, and silent
    cost_of_idle: IdleCost | None = None
    cpu_is_lower_bound: bool = False  # CPU time of its child processes is lost when they end
    rounds: list[Round] = field(default_factory=list)


def options(arguments=None):
    """Return the command line's options; exits with one line if they make no sense."""
    parser = command_parser(__doc__)
    counts, idle = (numbers(int, low, 100_000, distinct=False) for low in (1, 0))
    add, words = parser.add_argument, "more connections, all silent; N,N,... is one for each server"
    add("servers", nargs="+", metavar="SERVER", help='a model, a folder, "PROGRAM OPTIONS"')
    add("--connections", type=counts, default=[10, 100, 1000], metavar="N,N,...")
    add("--rounds", type=number(int, 1, 1000), default=5, help="for each server (default: 5)")
    add("--seconds", type=number(float, 0.05, 60), default=1.0, help="length of a round")
    add("--load", choices=LOADS, default="greet", help="visit: connect, one greeting, leave")
    add("--idle", type=idle, default=[0], metavar="N", help=words)
    add("--cold", action="store_true", help="do not warm the servers: see BENCH.md first")
    add("--processes", type=number(int, 1, 16), default=1, help="generators for each server")
    add("--json", type=Path, metavar="FILE", help="write every round there")
    args = parser.parse_args(arguments)
    if min(args.connections) < args.processes:
        parser.error("--connections needs at least one for each of the --processes")
    if args.json and args.json.is_dir():
        parser.error("--json takes a file, not a folder")
    idle = args.idle * len(args.servers) if len(args.idle) == 1 else args.idle
    if len(idle) != len(args.servers):
        parser.error("--idle takes one number, or one for each server")
    try:
        commands = [shlex.split(text) or [""] for text in args.servers]
        programs = [processes.find_server(command[0]) for command in commands]
    except (LaunchError, ValueError) as error:
        parser.error(lines(str(error)))
    suffixes = [
        "".join(f" {printable(word)}" for word in words) + (f" +{count} idle" if count else "")
        for (_, *words), count in zip(commands, idle, strict=True)
    ]
    names = processes.distinct_names(programs, suffixes)
    args.specs = list(map(Spec, names, programs, [words for _, *words in commands], idle))
    return args


@dataclass
class Target:
    """One running server, and the generator processes that load it."""

    name: str
    server: processes.Server
    generators: list

    def share(self, command, count, *more):
        """Give each generator its share of count; return their results. Raises BenchError."""
        parts = len(self.generators)
        for place, generator in enumerate(self.generators):
            share = count // parts + (place < count % parts)
            pickle.dump((command, share, *more), generator.stdin)
            generator.stdin.flush()
        return [self.result(generator) for generator in self.generators]

    def result(self, generator):
        try:
            result, error = pickle.load(generator.stdout)
        except EOFError:
            result, error = None, f"its generator ended with status {generator.wait()}"
        if error:  # the server's own end explains more
            end = self.server.describe_exit(0.5)
            alive = self.server.process.poll() is None
            raise BenchError(f"{self.name}: {error}" if alive else f"{self.name} {end}")
        return result

    def connect_idle(self, count):
        """Open silent connections; return their IdleCost."""

        def resident():  # of the server and all that it has started
            return processes.sum_over_tree(self.server.process, lambda one: one.memory_info().rss)

        before, kernel = resident(), kernel_memory()
        self.share("hold", count, True)
        grown, kernel = resident() - before, kernel_memory() - kernel  # bytes
        return IdleCost(resident=grown / 1024 / count, kernel=kernel / 1024 / count)

    def round(self, load, connections, seconds):
        """Return the Round of these seconds. Raises BenchError."""
        before = tree_cpu_seconds(self.server.process)
        results = self.share("round", connections, load, seconds)
        used = tree_cpu_seconds(self.server.process) - before
        latencies = sorted(ns / 1e9 for times, _, _ in results for ns in times)
        elapsed = max(seconds for _, seconds, _ in results)
        return Round(
            answered=len(latencies),
            seconds=elapsed,
            throughput=len(latencies) / elapsed,
            p50=nearest_rank(latencies, 50),
            p99=nearest_rank(latencies, 99),
            max=latencies[-1],
            cpu=used / len(latencies),
            busy=used / elapsed,
            generator_busy=max(cpu / seconds for _, seconds, cpu in results),
        )


@contextlib.contextmanager
def pinned_server(spec, cores, cold=False):
    """Start a server of a benchmark on these cores, warm it unless it is to be cold; yield it."""
    options = ("--quiet", "--backlog", BACKLOG, *spec.options)
    with processes.running_server(spec.program, *options) as server:
        pin(server.process, cores)
        if not cold:
            warm(server.address)
        yield server


def target(spec, cores, args, stack):
    """Start a server on the first core and its generators on the others; return a Target."""
    server = stack.enter_context(pinned_server(spec, cores[:1], args.cold))
    others = cores[1:] or cores
    generators = [
        stack.enter_context(generating(others[number % len(others)], server.address, number))
        for number in range(args.processes)
    ]
    return Target(spec.name, server, generators)


@contextlib.contextmanager
def generating(core, address, number):
    """Start a generator, yield its process, and end it."""
    program, first = "load_tests.harness.generator", number * NUMBERS
    line = processes.module_command(program, core, *address, first)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with processes.spawn(line, cwd=processes.ROOT, **pipes) as process:
        yield process
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def measure(args, connections, console):
    """Measure all servers with this number of connections; return a Measured for each."""
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        found = [Measured(connections, spec.name, spec.idle) for spec in args.specs]
        targets = [target(spec, cores, args, stack) for spec in args.specs]
        pairs = list(zip(targets, found, strict=True))
        for one, its in pairs:
            if args.load == "greet":
                one.share("hold", connections)
            if its.idle:
                its.cost_of_idle = one.connect_idle(its.idle)
            one.round(args.load, connections, min(WARM_UP, args.seconds))
        with console.status("") as status:
            for number in range(1, args.rounds + 1):
                for one, its in pairs:
                    status.update(Text(f"{connections} connections, round {number}: {one.name}"))
                    its.rounds.append(one.round(args.load, connections, args.seconds))
        for one, its in pairs:
            its.cpu_is_lower_bound = loses_child_cpu(one.server.process)
    return found


def median(measured, name):
    """Return the median of one of the numbers of a server's rounds."""
    return statistics.median(getattr(one, name) for one in measured.rounds)


def empty_table(first, *numbers):
    """Return a table with these headings and no rows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def results(servers, load):
    """Return the table of the medians of the rounds, and the longest latency of all rounds."""
    headings = f"{LOADS[load]}\n/s", "p50\nµs", "p99\nµs", "max\nms", "CPU\nµs", "busy\n%"
    table = empty_table("server", *headings)
    for one in servers:
        table.add_row(
            one.server,
            f"{median(one, 'throughput'):,.0f}",
            f"{1e6 * median(one, 'p50'):,.0f}",
            f"{1e6 * median(one, 'p99'):,.0f}",
            f"{1e3 * max(each.max for each in one.rounds):,.1f}",
            f"{'≥ ' if one.cpu_is_lower_bound else ''}{1e6 * median(one, 'cpu'):,.2f}",
            f"{100 * median(one, 'busy'):.0f}{mark(one) or ' '}",
        )
    return table


def ratio(one, first, name):
    """Return a number of a server's rounds relative to the first's, one by one, with quartiles."""
    pairs = zip(one.rounds, first.rounds, strict=True)
    each = [(getattr(mine, name), getattr(base, name)) for mine, base in pairs]
    if not (found := [mine / base for mine, base in each if base]):
        return "-"
    low, middle, high = quartiles(found)
    return f"{middle:.2f}" + (f" ({low:.2f}-{high:.2f})" if low < high else "")


def mark(measured):
    """Return the mark of a server that had a core and did not use it up: see MARKS."""
    if median(measured, "busy") >= SATURATED or usable_cores() < 2:
        return ""
    return "*" if median(measured, "generator_busy") >= SATURATED else "~"


MARKS = {
    "*": "* Generator-limited: the generator's core was busy and the server's was not. Throughput "
    "is a lower bound; latencies include the generator's own.",
    "~": "~ Neither core was busy: the server waits for something else (it sleeps, or has too few "
    "requests in flight), or other programs had the cores.",
}


def show(servers, args, console):
    """Print what one number of connections gave."""
    what = "in flight" if args.load == "greet" else "visitors at a time"
    title = f"{servers[0].connections:,} {what}, {args.rounds} rounds of {args.seconds:g} s"
    console.rule(title, align="left")
    console.print(results(servers, args.load))
    if len(servers) > 1:
        console.print(f"\nrelative to {servers[0].server} (1.00), quartiles of the rounds:")
        table, (first, *others) = empty_table("", "CPU", "throughput", "p99"), servers
        for one in others:
            table.add_row(one.server, *(ratio(one, first, name) for name in RATIOS))
        console.print(table)
    for one in servers:
        if cost := one.cost_of_idle:
            console.print(
                f"{one.server}: each of {one.idle:,} idle connections takes {cost.resident:.2f} KiB"
                f" in the server and {cost.kernel:.1f} KiB in the kernel (both ends)"
            )
    if any(one.cpu_is_lower_bound for one in servers):
        console.print("≥ lower bound: the CPU time of its child processes is lost when they end.")
    for one in sorted({mark(one) for one in servers} - {""}):
        console.print(MARKS[one])
    console.print()


def main():
    processes.require_linux()
    args, console, measured, failed = options(), Screen(), [], []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the children, too
    if (cores := usable_cores()) < 2:
        words = "server and generator share it; so do throughput and latency, and there is no mark"
        console.print(f"This machine gives us {count(cores, 'core')}: {words}.")
    # A server needs as many as its generators together, unless it is several processes.
    most = max(args.connections) + max(spec.idle for spec in args.specs)
    try:
        if args.json:
            ensure_writable(args.json.resolve().parent)
        processes.raise_nofile_limit(most // args.processes + DESCRIPTORS)
        for connections in args.connections:
            found = measure(args, connections, console)
            measured += found
            show(found, args, console)
    except CannotWrite as error:
        return lines(str(error))
    except KeyboardInterrupt:
        failed.append("interrupted")
    except (BenchError, LaunchError) as error:
        failed.append(str(error))
    except psutil.NoSuchProcess:
        failed.append("a server has ended between two rounds")
    try:  # what was measured before an error is written, too
        if args.json:
            content = {"schema": SCHEMA, "load": args.load, "measured": list(map(asdict, measured))}
            save(args.json, json.dumps(content, indent=1))
    except OSError as error:
        failed.append(f"cannot write to {args.json}: {error.strerror}")
    return lines("\n".join(failed)) or None


if __name__ == "__main__":
    sys.exit(main())
