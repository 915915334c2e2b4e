"""What notebooks 4 and 5 measure: comparisons, benchmarks, a stall, and what connections cost."""

import contextlib
import io
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas
from rich.console import Console

from clients.client import Client
from clients.system import processes
from load_tests import bench as benchmark
from load_tests import compare as comparison
from load_tests.harness.monitor import kernel_memory, reading
from load_tests.harness.results import Sample
from load_tests.harness.stats import quartiles

MEMORY = ["resident memory", "virtual memory", "kernel memory"]


def alternative(name):
    """Return the path of one of the alternative implementations."""
    return str(processes.ROOT / "load_tests" / "alternatives" / f"{name}.py")


def model(one):
    """Return the name of a Measured server, without what bench() adds to distinguish it."""
    return one.server.split()[0]


def compare(*servers, users=(), arrivals=(), **config):
    """Return the Comparison that load_tests.compare would report; nothing is drawn or written.

    servers: models or programs, all models if none. users, or arrivals per second: lists. config:
    fields of RunConfig, see load_tests/harness/results.py. Raises RuntimeError if a run fails.
    """
    return compare_with_samples(*servers, users=users, arrivals=arrivals, **config)[0]


def compare_with_samples(*servers, users=(), arrivals=(), **config):
    """Return the Comparison of compare(), and its samples.csv.gz as a DataFrame."""
    args = comparison.options([])  # the defaults
    args.config = replace(args.config, loop="open" if arrivals else "closed", **config)
    args.programs = [processes.find_server(name) for name in servers] or args.programs
    args.loads = arrivals or users
    processes.raise_nofile_limit(comparison.descriptors(args.config, args.loads))
    with processes.temp_dir() as place:
        args.out, console = Path(place), Console(quiet=True, force_jupyter=False)
        found, packed = comparison.compare(args, console)
    if found.interrupted:
        comparison.interruptible(True)  # since then signals were ignored
        raise KeyboardInterrupt
    errors = [run.error for run in found.failed_runs]
    errors += [f"{run.model}: {[*run.errors]}" for run in found.runs if run.outcomes.all_failed]
    if errors:
        raise RuntimeError("\n".join(errors))
    samples = pandas.read_csv(io.BytesIO(packed), compression="gzip", dtype={"session": str})
    return found, samples


def bench(*servers, connections, **options):
    """Return the Measured of each server that load_tests.bench would report with these options.

    Raises BenchError or LaunchError if it fails.
    """
    words = ["--connections", connections]
    for name, value in options.items():
        words += [f"--{name}"] + ([] if value is True else [value])
    args = benchmark.options([*map(str, (*servers, *words))])
    processes.raise_nofile_limit()
    return benchmark.measure(args, connections, Console(quiet=True, force_jupyter=False))


@dataclass
class Stall:
    """What a closed and an open loop measured of a server that stalled."""

    greetings: dict[str, list[Sample]]  # {"closed loop" or "open loop": ...}; session: a user
    began: float  # of the stall, in seconds since the start
    ended: float


def stalled(seconds, begins, lasts, every=0.1, users=5):
    """Load 03_epoll in a closed and an open loop at once, and stop it meanwhile; return a Stall.

    In the closed loop each user asks again `every` seconds after its answer; in the open loop
    each user asks once per `every` seconds. After `begins` seconds the server's process is
    stopped (SIGSTOP) for `lasts` seconds. Raises OSError if a request fails.
    """
    processes.raise_nofile_limit()
    found, now = {"closed loop": [], "open loop": []}, time.perf_counter

    def ask(loop, user, due):
        with Client(*server.address, timeout=30) as client:
            client.greet(b"bob")
        times = due - start, now() - start
        found[loop].append(Sample(user, "first_greeting", *times, "answered"))

    def ask_again(loop, user):
        due, asked = start + every * user / users, []
        while due < start + seconds:
            time.sleep(max(0, due - now()))
            asked.append(pool.submit(ask, loop, user, due))
            if loop == "closed loop":
                asked[-1].result()
                due = now()
            due += every
        for one in asked:
            one.result()

    program, options = processes.find_server("03_epoll"), ("--quiet", "--backlog", 1024)
    with (
        processes.running_server(program, *options) as server,
        ThreadPoolExecutor(int(2 * users * (2 + lasts / every))) as pool,
    ):
        start = now()
        tasks = [pool.submit(ask_again, loop, user) for loop in found for user in range(users)]
        time.sleep(begins)
        server.process.suspend()
        began = now()
        try:
            time.sleep(lasts)
        finally:
            ended = now()
            server.process.resume()
        for task in tasks:
            task.result()
    return Stall(found, began - start, ended - start)


def ratios(one, other, what):
    """Return the ratios of a field of two servers, each of two rounds next to each other."""
    pairs = zip(one.rounds, other.rounds, strict=True)
    return [getattr(mine, what) / getattr(its, what) for mine, its in pairs]


def ratio(one, other, what):
    """Return the median and the quartiles of ratios() as text: "1.21 (1.19 to 1.23)"."""
    low, middle, high = quartiles(ratios(one, other, what))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def verdict(one, other, what):
    """Return what ratios() of times allow to conclude: a median alone is not enough.

    A difference is one that chance makes in less than 1 of 100 cases (sign test): 8 pairs at least.
    """
    found = ratios(one, other, what)
    low, _, high = quartiles(found)
    if low > 0.85 and high < 1.15:
        return "within 15 %"
    longer, shorter = sum(one > 1 for one in found), sum(one < 1 for one in found)
    fewer, tosses = min(longer, shorter), longer + shorter
    if 2 * sum(math.comb(tosses, heads) for heads in range(fewer + 1)) / 2**tosses >= 0.01:
        return "unclear"
    return "longer" if longer > shorter else "shorter"


def costs(name, counts):
    """Return a DataFrame of the numbers of a server's Reading after each count of connections.

    Each connection was greeted once. MEMORY: MiB more than at the first count. The kernel memory
    is that of the whole machine, with both ends of each connection.
    """
    processes.raise_nofile_limit()
    rows, clients, options = [], [], ("--quiet", "--backlog", 4096)
    with (
        processes.running_server(processes.find_server(name), *options) as server,
        contextlib.ExitStack() as stack,
    ):
        for count in counts:
            while len(clients) < count:
                clients.append(stack.enter_context(Client(*server.address, timeout=30)))
                clients[-1].greet(b"bob")
            time.sleep(0.5)  # the kernel frees some of what it took at first
            row = reading(server.process, server.address[1])
            rows.append(asdict(row) | {"kernel memory": kernel_memory()})
    found = pandas.DataFrame(rows, index=pandas.Index(counts, name="connections"))
    found = found.select_dtypes("number")
    found = found.rename(columns={"rss": "resident memory", "vms": "virtual memory"})
    found[MEMORY] = (found[MEMORY] - found[MEMORY].iloc[0]) / 2**20
    return found
