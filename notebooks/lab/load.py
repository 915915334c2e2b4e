"""What notebooks 4 and 5 measure: load tests as child processes, and what connections cost."""

import contextlib
import gzip
import json
import math
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clients.client import Client
from clients.console.formatting import milliseconds
from clients.system import processes
from load_tests.harness.monitor import kernel_memory, reading
from load_tests.harness.stats import never_served, percentile, spread

MEMORY = ("resident memory", "virtual memory", "kernel memory")


def peer(name):
    """Return the path of one of the alternative implementations."""
    return str(processes.ROOT / "load_tests" / "alternatives" / f"{name}.py")


def compare(*servers, **options):
    """Run load_tests.compare and return its results.json (see load_tests/README.md).

    servers: models or programs, all models if none. options: its options, as users="10,50".
    Each run has, besides, "firsts": the samples of its first greetings, see stats.py, in seconds
    since its start. Raises RuntimeError with its last words if it fails.
    """
    with processes.temp_dir() as place:
        run("load_tests.compare", *servers, out=place, **options)
        results = json.loads(Path(place, "results.json").read_text())
        with gzip.open(Path(place, "samples.csv.gz"), "rt") as file:
            rows = [line.rstrip().split(",") for line in file if ",first," in line]
    for one in results["runs"]:
        mine = [row[2:] for row in rows if row[:2] == [one["model"], str(one["load"])]]
        one["firsts"] = [
            (visitor, what, float(began), float(ended), outcome)
            for visitor, what, began, ended, outcome in mine
        ]
    return results


def first_p99(one, since, until):
    """Return the p99 of the first greetings of those who came in this part of a run, in seconds.

    {"ms", "exact"}, see score.percentile(); None if nobody came then.
    """
    return percentile([row for row in one["firsts"] if since <= row[2] < until], 99)


def blast(*servers, connections, **options):
    """Run load_tests.bench with one number of connections; return each server's numbers, a list.

    A server's numbers: {"server", "idle", "cost_of_idle", "rounds": [{"answered", "seconds",
    "throughput", "p50", "p99", "max", "cpu", "busy", "generator_busy"}, ...]}; times in seconds.
    """
    with processes.temp_dir() as place:
        file = Path(place, "blast.json")
        run("load_tests.bench", *servers, connections=connections, json=file, **options)
        [block] = json.loads(file.read_text())["blocks"]
    return block["servers"]


def run(module, *arguments, **options):
    words = []
    for name, value in options.items():  # cold=True is --cold
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [value])
    line = processes.tool(module, *arguments, *words)
    done = processes.run_captured(line, cwd=processes.ROOT, timeout=900)
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stdout[-500:]} {done.stderr[-500:]}")


def bounded(found):
    """Return first_p99() as text: "≥" before it if it is only a lower bound."""
    if not found:
        return "-"
    return ("" if found["exact"] else "≥ ") + milliseconds(found["ms"])


def stalled(seconds, begins, lasts, every=0.1, users=5):
    """Ask 03_epoll in a closed and in an open loop at the same time, and halt it once meanwhile.

    In the closed loop each user asks again `every` seconds after its answer; in the open loop
    each asks every so many seconds, whatever happens. A request is a connection and a greeting.
    After `begins` seconds the server's process is stopped (SIGSTOP) for `lasts` seconds.
    Return {loop: [(user, when it should have started, when it was answered), ...], "stall":
    (began, ended)}; seconds since the start. Raises OSError if a request fails.
    """
    processes.raise_nofile_limit()
    found, now = {"closed loop": [], "open loop": []}, time.perf_counter

    def ask(loop, user, due):
        with Client(*server.address, timeout=30) as client:
            client.greet(b"bob")
            found[loop].append((user, due - start, now() - start))

    def closed(user):
        due = start + every * user / users
        while due < start + seconds:
            time.sleep(max(0, due - now()))
            ask("closed loop", user, due)
            due = now() + every

    def opened(user):
        due, asked = start + every * user / users, []
        while due < start + seconds:
            time.sleep(max(0, due - now()))
            asked.append(pool.submit(ask, "open loop", user, due))
            due += every
        for one in asked:
            one.result()

    with (
        processes.running_server(
            processes.find("03_epoll"), "--quiet", "--backlog", 1024
        ) as server,
        ThreadPoolExecutor(int(2 * users * (2 + lasts / every))) as pool,
    ):
        start = now()
        tasks = [pool.submit(loop, user) for loop in (closed, opened) for user in range(users)]
        time.sleep(begins)
        found["stall"] = halt(server.process, lasts, start)
        for task in tasks:
            task.result()
    return found


def halt(process, seconds, start):
    """Stop a process for so long; return when that was, in seconds since start (perf_counter)."""
    process.suspend()
    began = time.perf_counter() - start
    try:
        time.sleep(seconds)
    finally:
        ended = time.perf_counter() - start
        process.resume()
    return began, ended


def table(results):
    """Return a Markdown table of workloads: {work: results of compare()}, a column a server."""
    names = [run["model"] for run in next(iter(results.values()))["runs"]]
    rows = [["", *names], ["---"] + ["---:"] * len(names)]
    for work, data in results.items():
        fair = [run for run in data["runs"] if not never_served(run["scoreboard"])]
        best = max((run["greetings_per_second"] for run in fair), default=None)
        if any(run["generator"]["bottleneck"] for run in fair):
            best = None  # a rate with a star is a lower bound
        rows.append([f"**{work}**", *(cell(run, best) for run in data["runs"])])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def cell(run, best):
    rate, left = run["greetings_per_second"], never_served(run["scoreboard"])
    text = f"{rate:,.0f}" + ("*" if run["generator"]["bottleneck"] else "")
    return text + (f", {left} left" if left else f" ({rate / best:.2f})" if best else "")


def compute(size):
    """Count, in Python: work that needs the interpreter all the time."""
    total = 0
    for number in range(size):
        total += number
    return total


def two_pieces(way, size):
    """Return the seconds that two pieces of work take; way: map, or the map of a pool."""
    began = time.perf_counter()
    list(way(compute, [size, size]))
    return time.perf_counter() - began


def model(numbers):
    """Return the name of a server, without what blast() adds to tell it from the others."""
    return numbers["server"].split()[0]


def first_and_last(found, name):
    """Return a server's numbers with the fewest and with the most silent clients."""
    mine = [one for one in found if model(one) == name]
    mine.sort(key=lambda one: one["idle"])
    return mine[0], mine[-1]


def median(one, what):
    """Return the median of a server's rounds."""
    return statistics.median(each[what] for each in one["rounds"])


def ratios(one, other, what):
    """Return one server's rounds over the other's, each over the one at its side."""
    pairs = zip(one["rounds"], other["rounds"], strict=True)
    return [mine[what] / its[what] for mine, its in pairs]


def ratio(one, other, what):
    """Return the median of one server's rounds over the other's, and the quartiles."""
    low, middle, high = spread(ratios(one, other, what))
    return middle, low, high


def over(one, other, what):
    """Return ratio() as text: "1.21 (1.19 to 1.23)"."""
    middle, low, high = ratio(one, other, what)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def verdict(one, other, what):
    """Return what ratios() allow to say: a median alone would say too much.

    A change must be one that chance makes in less than 1 of 100 cases (the two-sided sign test).
    """
    found = ratios(one, other, what)
    low, _, high = spread(found)
    if low > 0.85 and high < 1.15:
        return "no change seen"
    above, below = sum(each > 1 for each in found), sum(each < 1 for each in found)
    if by_chance(max(above, below), above + below) >= 0.01:
        return "unclear"
    return "longer" if above > below else "shorter"


def by_chance(most, tosses):
    """Return how probable it is that so many tosses of a coin, or more, fall on one same side."""
    ways = sum(math.comb(tosses, heads) for heads in range(most, tosses + 1))
    return min(1, 2 * ways / 2**tosses)


def costs(name, counts):
    """Let ever more clients connect to a server, be greeted once, and stay.

    Return what they cost after each of the counts: watch.reading() of the server, with
    "connections": how many it serves, and the MEMORY: MiB more than before the first of them,
    of the server, and of the whole machine's kernel. Both ends of each connection are on this
    machine.
    """
    processes.raise_nofile_limit()
    rows, options = [], ("--quiet", "--backlog", 4096)
    with (
        processes.running_server(processes.find(name), *options) as server,
        contextlib.ExitStack() as stack,
    ):
        before, connected = usage(server), 0
        for count in counts:
            for _ in range(connected, count):
                client = stack.enter_context(Client(*server.address, timeout=30))
                client.greet(b"bob")
            connected = count
            time.sleep(0.5)  # the kernel frees some of what it took at first
            row = usage(server)
            more = {kind: row[kind] - before[kind] for kind in MEMORY}
            rows.append(row | more | {"connections": count})
    return rows


def usage(server):
    """Return watch.reading() of a server, and the MEMORY that it and the kernel use, in MiB."""
    row = reading(server.process, server.address[1])
    sizes = row["rss"], row["vms"], kernel_memory()
    return row | {kind: size / 2**20 for kind, size in zip(MEMORY, sizes, strict=True)}
