"""Benchmark greeting servers in pairs: what a greeting costs the server, and how long it takes.

.venv/bin/python -m load_tests.bench 02_threaded 03_epoll
.venv/bin/python -m load_tests.bench 03_epoll load_tests/alternatives/asyncio_streams.py --rounds 9
.venv/bin/python -m load_tests.bench 03_epoll "my_server.py --pool 4"
.venv/bin/python -m load_tests.bench 03_epoll 03_epoll --connections 10 --idle 0,10000
.venv/bin/python -m load_tests.bench 03_epoll 02_threaded --load visit

The servers run at the same time and take turns, A B A B ..., so that what else the machine does
meets all of them. Each server has one core, what asks it another; README.md, "The benchmark".
"""

import argparse
import contextlib
import json
import os
import pickle
import shlex
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.table import Table
from rich.text import Text

from clients.console.argtypes import number, numbers
from clients.console.printable import printable
from clients.system.processes import (
    ROOT,
    LaunchError,
    Server,
    find,
    names_of,
    raise_nofile_limit,
    running_server,
    spawn,
    sum_over_tree,
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
from load_tests.harness.monitor import family_cpu_seconds, forgets, kernel_memory, pin
from load_tests.harness.stats import nearest_rank, spread
from load_tests.harness.warm import warm

BACKLOG = 4096  # nobody's SYN is dropped, however many come at once
WARM = 0.2  # seconds of a first round that does not count
DESCRIPTORS = 100  # what a process needs besides its connections
NUMBERS = 1_000_000  # how many numbers each generator has for its clients
SATURATED = 0.9  # of its core: a server that used less had time left
LOADS = {"greet": "greetings", "visit": "visits"}


class BlastError(RuntimeError):
    """A server did not do what it should, and what it did."""


def options(arguments=None):
    """Return the command line's options; exits with one line if they make no sense."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    counts, add = numbers(int, 1, 100_000, distinct=False), parser.add_argument
    add("servers", nargs="+", metavar="SERVER", help='a model, a folder, "PROGRAM OPTIONS"')
    add("--connections", type=counts, default=[10, 100, 1000], metavar="N,N,...")
    add("--rounds", type=number(int, 1, 1000), default=5, help="for each server (default: 5)")
    add("--seconds", type=number(float, 0.05, 60), default=1.0, help="length of a round")
    add("--load", choices=LOADS, default="greet", help="visit: connect, one greeting, leave")
    add(
        "--idle",
        type=numbers(int, 0, 100_000, distinct=False),
        default=[0],
        metavar="N",
        help="more connections that say nothing; N,N,... gives one number for each server",
    )
    add("--cold", action="store_true", help="do not warm the servers: see README.md first")
    add("--processes", type=number(int, 1, 16), default=1, help="that ask each server")
    add("--json", type=Path, metavar="FILE", help="write every round there")
    args = parser.parse_args(arguments)
    if min(args.connections) < args.processes:
        parser.error("--connections takes one for each of the --processes or more")
    if len(args.idle) == 1:
        args.idle *= len(args.servers)
    if len(args.idle) != len(args.servers):
        parser.error("--idle takes one number, or one for each server")
    try:
        words = [shlex.split(text) or [""] for text in args.servers]
        args.servers = [(find(name), more) for name, *more in words]
    except (LaunchError, ValueError) as error:
        parser.error(lines(str(error)))
    return args


@dataclass
class Target:
    """One server under test, and the generators that ask it."""

    name: str
    server: Server
    generators: list
    cost_of_idle: dict | None = None  # what one idle connection costs: see hold()

    def ask(self, commands):
        """Give each generator its command, and return what they answer. Raises BlastError."""
        for generator, command in zip(self.generators, commands, strict=True):
            pickle.dump(command, generator.stdin)
            generator.stdin.flush()
        results, errors = zip(*(reply(generator) for generator in self.generators), strict=True)
        for error in filter(None, errors):
            raise BlastError(self.blame(error))
        return results

    def blame(self, error):
        """Return what went wrong: the server's own end explains more than a lost connection."""
        end = self.server.end(0.5)
        alive = self.server.process.poll() is None
        return f"{self.name}: {error}" if alive else f"{self.name} {end}"

    def hold(self, busy, idle):
        """Open connections, those that stay silent last, and note what one of these costs.

        "resident": KiB in the server's processes; "kernel": KiB in the machine's kernel, for both
        ends of the connection; "connect": seconds until it has been greeted once, so many
        connecting at a time as there are generators.
        """
        if busy:
            self.ask([("hold", share, 0) for share in shares(busy, len(self.generators))])
        before, kernel, began = self.resident(), kernel_memory(), time.perf_counter()
        self.ask([("hold", 0, share) for share in shares(idle, len(self.generators))])
        if idle:
            self.cost_of_idle = {
                "resident": (self.resident() - before) / 1024 / idle,
                "kernel": (kernel_memory() - kernel) / 1024 / idle,
                "connect": (time.perf_counter() - began) / idle,
            }

    def resident(self):
        """Return the bytes of memory that the server and all that it has started have."""
        return sum_over_tree(self.server.process, lambda one: one.memory_info().rss)

    def round(self, load, connections, seconds):
        """Return the numbers of one round; times are in seconds. Raises BlastError."""
        before = family_cpu_seconds(self.server.process)
        if load == "greet":
            results = self.ask([("greet", seconds)] * len(self.generators))
        else:
            parts = shares(connections, len(self.generators))
            results = self.ask([("visit", part, seconds) for part in parts])
        used = family_cpu_seconds(self.server.process) - before
        waits = sorted(wait / 1e9 for result in results for wait in result["waits"])
        elapsed = max(result["seconds"] for result in results)
        return {
            "answered": len(waits),
            "seconds": elapsed,
            "rate": len(waits) / elapsed,
            "p50": nearest_rank(waits, 50),
            "p99": nearest_rank(waits, 99),
            "max": waits[-1],
            "cpu": used / len(waits),
            "busy": used / elapsed,
            "generator_busy": max(result["cpu"] / result["seconds"] for result in results),
        }


def reply(generator):
    """Return a generator's answer (result, error)."""
    try:
        return pickle.load(generator.stdout)
    except EOFError:
        return None, f"what asked it ended with status {generator.wait()}"


def shares(count, parts):
    """Divide count by so many parts: [4, 3, 3]."""
    return [count // parts + (number < count % parts) for number in range(parts)]


@contextlib.contextmanager
def target(name, program, more, cores, args):
    """Start a server on the first core and its generators on the others; yield a Target."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            running_server(program, "--quiet", "--backlog", BACKLOG, *more)
        )
        pin(server.process, cores[:1])
        if not args.cold:
            warm(server.address)
        others = cores[1:] or cores
        generators = [
            stack.enter_context(generating(others[number % len(others)], server.address, number))
            for number in range(args.processes)
        ]
        yield Target(name, server, generators)


@contextlib.contextmanager
def generating(core, address, number):
    """Start a generator, yield its process, and end it."""
    line = tool("load_tests.harness.generator", core, *address, number * NUMBERS)
    with spawn(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def block(args, connections, console):
    """Measure all servers with so many connections; return what each of them did."""
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        targets = [
            stack.enter_context(target(name, *server, cores, args))
            for name, server in zip(names(args), args.servers, strict=True)
        ]
        for one, idle in zip(targets, args.idle, strict=True):
            one.hold(connections if args.load == "greet" else 0, idle)
            one.round(args.load, connections, min(WARM, args.seconds))
        rounds = [[] for _ in targets]
        with console.status("") as status:
            for number in range(args.rounds):
                for one, done in zip(targets, rounds, strict=True):
                    text = f"{connections} connections, round {number + 1}: {one.name}"
                    status.update(Text(text))
                    done.append(one.round(args.load, connections, args.seconds))
        bounds = [forgets(one.server.process) for one in targets]
    return [
        {
            "server": one.name,
            "idle": idle,
            "cost_of_idle": one.cost_of_idle,
            "cpu_is_bound": bound,
            "rounds": done,
        }
        for one, idle, bound, done in zip(targets, args.idle, bounds, rounds, strict=True)
    ]


def names(args):
    """Return what the tables call the servers: no two the same."""
    texts, short = [], names_of([program for program, _ in args.servers])
    for name, (_, more), idle in zip(short, args.servers, args.idle, strict=True):
        text = " ".join([name, *map(printable, more)])
        texts.append(text + (f" +{idle} idle" if idle else ""))
    return numbered(texts)


def median(found, what):
    return statistics.median(one[what] for one in found["rounds"])


def empty_table(first, *numbers):
    """Return a table with these headings and no rows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def measured(found, load):
    """Return the table of what was measured: medians of the rounds, and the longest wait of all."""
    headings = f"{LOADS[load]}\n/s", "p50\nµs", "p99\nµs", "max\nms", "CPU\nµs", "busy\n%"
    table = empty_table("server", *headings)
    for one in found:
        busy = median(one, "busy")
        table.add_row(
            one["server"],
            f"{median(one, 'rate'):,.0f}",
            f"{1e6 * median(one, 'p50'):,.0f}",
            f"{1e6 * median(one, 'p99'):,.0f}",
            f"{1e3 * max(each['max'] for each in one['rounds']):,.1f}",
            ("≥ " if one["cpu_is_bound"] else "") + f"{1e6 * median(one, 'cpu'):,.2f}",
            f"{100 * busy:.0f}" + ("*" if busy < SATURATED else " "),
        )
    return table


def ratios(found):
    """Return the table of each server over the first, round by round: median and quartiles."""
    first, *others = found
    table = empty_table(f"over {first['server']}", "CPU", "rate", "p99")
    for one in others:
        row = []
        for what in ("cpu", "rate", "p99"):
            pairs = zip(one["rounds"], first["rounds"], strict=True)
            over = [mine[what] / its[what] for mine, its in pairs if its[what]]
            low, middle, high = spread(over) if over else (0, 0, 0)
            text = f"{middle:.2f}" + (f" ({low:.2f}-{high:.2f})" if low < high else "")
            row.append(text if over else "-")
        table.add_row(one["server"], *row)
    return table


def show(found, connections, args, console):
    """Print what one number of connections gave."""
    what = "in flight" if args.load == "greet" else "visitors at a time"
    title = f"{connections:,} {what}, {args.rounds} rounds of {args.seconds:g} s"
    console.rule(title, align="left")
    console.print(measured(found, args.load))
    if len(found) > 1:
        console.print()
        console.print(ratios(found))
    for one in found:
        if one["idle"]:
            cost = one["cost_of_idle"]
            text = f"{one['server']}: each of {one['idle']:,} idle connections takes "
            text += f"{cost['resident']:.2f} KiB in the server, {cost['kernel']:.1f} KiB in the "
            text += f"kernel (both ends), and {1e6 * cost['connect']:.0f} µs to connect"
            console.print(text)
    if any(one["cpu_is_bound"] for one in found):
        console.print("≥ It ignores SIGCHLD: the time of a child that has ended is lost.")
    if any(median(one, "busy") < SATURATED for one in found):
        console.print("* It had time left: rate and waits are also those of what asked it.")
    console.print()


def main():
    args = options()
    try:
        # A server needs as many as its generators together, unless it is several processes.
        raise_nofile_limit((max(args.connections) + max(args.idle)) // args.processes + DESCRIPTORS)
        make_sure_of_file(args.json)
    except (LaunchError, CannotWrite) as error:
        sys.exit(lines(str(error)))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the children, too
    console, blocks, failed = Screen(), [], None
    if len(os.sched_getaffinity(0)) == 1:
        console.print("There is one core only: rates and waits are those of both sides together.")
    try:
        for connections in args.connections:
            found = block(args, connections, console)
            blocks.append({"connections": connections, "servers": found})
            show(found, connections, args, console)
    except KeyboardInterrupt:
        failed = "interrupted"
    except (BlastError, LaunchError) as error:
        failed = str(error)
    except psutil.NoSuchProcess:
        failed = "a server has ended between two rounds"
    if failed and blocks:
        console.print("What stands above was measured before the run ended.")
    return ended(failed, args.json, json.dumps({"load": args.load, "blocks": blocks}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
