"""What notebooks 4 and 5 measure: load tests as child processes, and what connections cost."""

import contextlib
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pandas

from clients.client import Client
from clients.system import processes
from load_tests.harness import results, stats
from load_tests.harness.monitor import kernel_memory, reading
from load_tests.harness.samples import Sample
from load_tests.harness.stats import percentile, quartiles

MEMORY = ("resident memory", "virtual memory", "kernel memory")


def peer(name):
    """Return the path of one of the alternative implementations."""
    return str(processes.ROOT / "load_tests" / "alternatives" / f"{name}.py")


def compare(*servers, **options):
    """Run load_tests.compare; return its Comparison, see load_tests/harness/results.py.

    servers: models or programs, all models if none. options: its options, such as users="10,50".
    Raises RuntimeError with its last words if it fails.
    """
    return compare_with_samples(*servers, **options)[0]


def compare_with_samples(*servers, **options):
    """Return the Comparison of compare(), and its samples.csv.gz as a DataFrame."""
    with processes.temp_dir() as place:
        run("load_tests.compare", *servers, out=place, **options)
        frame = pandas.read_csv(Path(place, "samples.csv.gz"), dtype={"session": str})
        return results.read(Path(place, "results.json")), frame


def samples(*servers, **options):
    """Return a list of the Samples of each run of compare(), in the order of its runs."""
    found, frame = compare_with_samples(*servers, **options)
    runs = dict(iter(frame.groupby(["model", "load", "repeat"])))
    return [
        [Sample(*row) for row in runs[run.model, run.load, run.repeat][[*Sample._fields]].values]
        for run in found.runs
    ]


def first_tail(samples, since, until):
    """Return the p99 of the first greetings that began in this part of a run, in seconds.

    Below 100 of them it is the longest one, and None if there are none.
    """
    rows = [
        one for one in samples if one.request == "first_greeting" and since <= one.began < until
    ]
    return percentile(rows, 99) or percentile(rows, 100)


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


def table(works):
    """Return a Markdown table of workloads: {work: a Comparison}, a column per server."""
    names = [run.model for run in next(iter(works.values())).runs]
    rows = [["", *names], ["---"] + ["---:"] * len(names)]
    for work, data in works.items():
        fair = [run for run in data.runs if not run.outcomes.unserved]
        best = max((run.throughput for run in fair), default=None)
        if any(run.generator.limited for run in fair):
            best = None  # a generator-limited rate is a lower bound
        rows.append([f"**{work}**", *(cell(run, best) for run in data.runs)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def cell(run, best):
    rate, unserved = run.throughput, run.outcomes.unserved
    text = f"{rate:,.0f}" + ("*" if run.generator.limited else "")
    return text + (
        f", {unserved} unserved" if unserved else f" ({rate / best:.2f})" if best else ""
    )


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
    low, middle, high = quartiles(ratios(one, other, what))
    return middle, low, high


def over(one, other, what):
    """Return ratio() as text: "1.21 (1.19 to 1.23)"."""
    middle, low, high = ratio(one, other, what)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def verdict(one, other, what):
    """Return what ratios() of times allow to say: a median alone would say too much."""
    found = stats.verdict(ratios(one, other, what))
    return {"more": "longer", "less": "shorter"}.get(found, found)


def costs(name, counts):
    """Let ever more clients connect to a server, be greeted once, and stay.

    Return what they cost after each of the counts: monitor.Reading of the server, with
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
    """Return the Reading of a server as a dictionary, with the MEMORY in use, in MiB."""
    row = asdict(reading(server.process, server.address[1]))
    sizes = row["rss"], row["vms"], kernel_memory()
    return row | {kind: size / 2**20 for kind, size in zip(MEMORY, sizes, strict=True)}
