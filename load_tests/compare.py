"""Compare the server models under the same load, and end with a table, a picture and a report.

.venv/bin/python -m load_tests.compare                        all models; about 90 seconds
.venv/bin/python -m load_tests.compare --seconds 1            a quick look
.venv/bin/python -m load_tests.compare 03_epoll my/server.py --users 100 --load chatterbox
.venv/bin/python -m load_tests.compare --web 01_blocking      Locust's own page
"""

import argparse
import contextlib
import csv
import datetime
import gzip
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from clients.system.kernel import queue_limit
from clients.system.launch import (
    ROOT,
    LaunchError,
    find,
    last_words,
    make_room,
    models,
    name_of,
    running,
    started,
)
from load_tests.measuring import report, score
from load_tests.measuring.watch import watching

HERE = Path(__file__).resolve().parent
SCHEMA = 1
USERS = {"visitors": "Visitors", "chatterbox": "Chatterbox", "idlers": "Idlers"}
START = 1.6  # seconds that starting a server and Locust takes, for the time left
WIDE = 130  # columns of a terminal that holds the whole table
SLACK = 60  # seconds after which a Locust that should have ended is killed
DESCRIPTORS = 100  # what a process needs besides its connections


class RunError(RuntimeError):
    """A run that gave no numbers, and why."""


def options(arguments=None):
    """Return the command line's options; exits with one line if they make no sense."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("servers", nargs="*", metavar="MODEL|PATH", help="default: all models")
    parser.add_argument("--users", type=numbers(int), default=[1, 10, 50, 200], metavar="N,N,...")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each run")
    parser.add_argument("--load", choices=USERS, default="visitors")
    parser.add_argument(
        "--arrivals",
        type=numbers(float),
        metavar="RATE,...",
        help="open loop: so many visitors a second (Poisson), instead of --users",
    )
    parser.add_argument("--backlog", type=int, default=5)
    parser.add_argument("--wait", type=float, default=0.0, help="seconds each greeting waits")
    parser.add_argument("--compute", type=float, default=0.0, help="seconds each one computes")
    parser.add_argument("--processes", type=int, default=1, help="Locust processes")
    parser.add_argument("--out", type=Path, default=HERE / "results", metavar="DIR")
    parser.add_argument("--against", type=Path, metavar="RESULTS.JSON", help="print the ratios")
    parser.add_argument("--web", metavar="MODEL|PATH", help="open Locust's page on one server")
    args = parser.parse_args(arguments)
    if args.arrivals and args.load != "visitors":
        parser.error("--arrivals are visitors: leave out --load")
    if args.seconds < 0.5 or args.processes < 1 or args.backlog < 0:
        parser.error("--seconds takes 0.5 or more, --processes 1 or more, --backlog 0 or more")
    args.loads = args.arrivals or args.users
    args.out = args.out.resolve()
    args.user = "Arrivals" if args.arrivals else USERS[args.load]
    try:
        names = [args.web] if args.web else args.servers
        args.programs = [find(name) for name in names] or list(models().values())
        args.old = json.loads(args.against.read_text()) if args.against else None
    except (LaunchError, OSError, ValueError) as error:
        parser.error(str(error))
    return args


def numbers(kind):
    """Return a reader of "1,10,50" for argparse: a list of numbers above 0, in order."""

    def read(text):
        values = sorted({kind(part) for part in text.split(",")})
        if not 0 < values[0] <= values[-1] <= 20_000:
            raise ValueError
        return values

    read.__name__ = "list of numbers from 1 to 20000"
    return read


def compare(args, console):
    """Run each program under each load; return the results, of an interrupted comparison too."""
    results = {
        "schema": SCHEMA,
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine(),
        "options": {
            "load": args.load,
            "loop": "open" if args.arrivals else "closed",
            "seconds": args.seconds,
            "backlog": args.backlog,
            "wait": args.wait,
            "compute": args.compute,
            "processes": args.processes,
        },
        "interrupted": False,
        "runs": [],
    }
    plan = [(program, load) for load in args.loads for program in args.programs]
    with progress(console) as bar, gzip.open(args.out / "samples.csv.gz", "wt", 1) as file:
        samples = csv.writer(file)
        samples.writerow(["model", "load", "visitor", "what", "began", "ended", "outcome"])
        task = bar.add_task("", total=len(plan), left="")
        try:
            for done, (program, load) in enumerate(plan):
                left = (len(plan) - done) * (args.seconds + START)
                text = f"{name_of(program)}, {load:g} {report.load_unit(results)}"
                bar.update(task, description=text, left=f"about {left:.0f} s left")
                if not console.is_terminal:
                    console.print(text)
                results["runs"].append(run(program, load, args, samples, console))
                bar.update(task, advance=1, left="done")
        except KeyboardInterrupt:
            results["interrupted"] = True
    return results


def progress(console):
    """Return a bar that shows what runs now and how long all of it will still take."""
    texts = ("{task.completed}/{task.total}", "{task.fields[left]}")
    columns = [TextColumn("{task.description:32}"), BarColumn(), *map(TextColumn, texts)]
    return Progress(*columns, console=console, disable=not console.is_terminal)


def run(program, load, args, samples, console):
    """Return the numbers of one program under one load; an error is one of them."""
    result = {"model": name_of(program), "program": str(program), "load": load, "error": None}
    settings = [
        "--quiet",
        "--backlog",
        args.backlog,
        "--wait",
        args.wait,
        "--compute",
        args.compute,
    ]
    try:
        with running(program, *settings) as server:
            with watching(server.process, server.address[1]) as readings:
                journal, page = locust(server.address, load, args, result["model"])
            if server.process.poll() is not None:
                raise RunError(f"it {server.end()}")
        result |= {"locust": page, **score.summary(journal["samples"])}
        result |= {"server": costs(readings, result, args), "generator": generator(journal)}
        result["errors"] = journal["errors"]
    except (LaunchError, RunError) as error:
        result["error"] = str(error)
        console.print(f"[red]{result['model']}, {load:g}:[/] ", end="")
        console.print(str(error), markup=False, highlight=False)
        return result
    start = min(sample[2] for sample in journal["samples"])
    for visitor, what, began, ended, outcome in journal["samples"]:
        row = [result["model"], load, visitor, what, f"{began - start:.6f}", f"{ended - start:.6f}"]
        samples.writerow([*row, outcome])
    return result


def settings(args):
    """Return the options with which every server is started."""
    names = ("backlog", "wait", "compute")
    return ["--quiet", *(part for name in names for part in (f"--{name}", getattr(args, name)))]


def web(args, console):
    """Run one server and Locust's page for it, until Ctrl-C."""
    with running(args.programs[0], *settings(args)) as server:
        host, port = server.address
        command = [sys.executable, "-m", "locust", "--config", HERE / "locust.conf"]
        command += ["--locustfile", HERE / "locustfile.py", "--web-port", free_port(8089)]
        command += ["--host", f"tcp://{host}:{port}", "--server-pid", server.process.pid]
        console.print(f"{server.name} listens on {host}:{port}.")
        console.print(f"Open http://127.0.0.1:{command[8]} and look at the tab Server.")
        console.print("Ctrl-C ends both.")
        with contextlib.suppress(KeyboardInterrupt):
            child(list(map(str, command)), subprocess.DEVNULL, None)


def free_port(wanted=0):
    """Return a free port of 127.0.0.1: the wanted one if it is free."""
    try:
        with socket.create_server(("127.0.0.1", wanted)) as free:
            return free.getsockname()[1]
    except OSError:
        return free_port()


def locust(address, load, args, name):
    """Let Locust load the server at address; return its journal and the name of its own report."""
    page = f"locust-{name}-{load:g}.html"
    host, port = address
    with tempfile.TemporaryDirectory() as folder:
        journal, log = Path(folder, "journal.json"), Path(folder, "log")
        command = [sys.executable, "-m", "locust", "-f", HERE / "locustfile.py", "--headless"]
        command += ["--host", f"tcp://{host}:{port}", "--seconds", args.seconds]
        command += ["--journal", journal, "--html", args.out / page]
        command += ["--exit-code-on-error", 0, "--only-summary", "--loglevel", "WARNING"]
        users = args.processes if args.arrivals else load
        command += ["-u", users, "-r", users]
        if args.arrivals:
            command += ["--arrivals", load]
        if args.processes > 1:
            command += together(args.processes)
        command += [args.user]
        with open(log, "wb") as output:
            child(list(map(str, command)), output, args.seconds + SLACK)
        try:
            content = json.loads(journal.read_text())
        except (OSError, ValueError):
            words = last_words(log.read_text(errors="replace"))
            raise RunError(f"Locust gave no numbers. Its last words: {words}") from None
    if not content["samples"]:
        raise RunError("not one visitor came")
    return content, page


def together(processes):
    """Return the options that make Locust run as a master and so many workers of this machine."""
    port = free_port()  # 5557 may be another run's master
    command = ["--processes", processes, "--expect-workers", processes]
    command += ["--workers-in-all", processes, "--master-bind-host", "127.0.0.1"]
    return [*command, "--master-bind-port", port, "--master-port", port]


def child(command, output, timeout):
    """Run command to its end, in a process group of its own, and never leave it behind."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
    # From ROOT, Locust finds the rest of the repository.
    with started(command, cwd=ROOT, **streams) as process:
        with contextlib.suppress(psutil.TimeoutExpired):  # what it left in its log is reported
            process.wait(timeout)


def costs(readings, summary, args):
    """Return what the server used, from the readings of its run; see README.md."""
    first, last = readings[0], readings[-1]

    def most(name):
        return max(reading[name] for reading in readings)

    connections = most("descriptors") - first["descriptors"]
    grown = most("rss") - first["rss"]
    return {
        "cpu_seconds": last["cpu"] - first["cpu"],
        "cpu_us_per_greeting": per(last["cpu"] - first["cpu"], summary["greetings"], 1e6),
        "cpu_share": (last["cpu"] - first["cpu"]) / (last["at"] - first["at"]),
        "switches_per_greeting": per(last["switches"] - first["switches"], summary["greetings"]),
        "rss_start": first["rss"],
        "rss_most": most("rss"),
        "connections_most": connections,
        "rss_per_connection": per(grown, connections),
        "threads_most": most("threads"),
        "descriptors_most": most("descriptors"),
        "accept_queue_most": most("accept_queue"),
        "accept_queue_limit": queue_limit(args.backlog),
        "syn_sent_most": max(reading["clients"].get("SYN-SENT", 0) for reading in readings),
        "listen_overflows": last["ListenOverflows"] - first["ListenOverflows"],
        "listen_drops": last["ListenDrops"] - first["ListenDrops"],
        "readings": readings,
    }


def per(amount, count, factor=1.0):
    """Return amount for each of count, None if there are none."""
    return amount / count * factor if count else None


def generator(journal):
    """Return how the load generator itself fared, and whether it was the bottleneck."""
    lags = sorted(lag for seen in journal["generators"].values() for lag in seen["lag"]) or [0.0]
    cpu = max((seen["cpu"] for seen in journal["generators"].values()), default=0.0)
    late = lags[int(len(lags) * 0.99)] * 1000
    return {"cpu_share": cpu, "lag_ms_p99": late, "bottleneck": cpu > 0.9 or late > 50}


def machine():
    """Return what a reader needs to know of this machine."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "cpu": cpu[0].split(": ")[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "locust": version("locust"),
        "gevent": version("gevent"),
    }


def main():
    args = options()
    try:
        make_room(0 if args.arrivals else max(args.users) + DESCRIPTORS)
    except LaunchError as error:
        sys.exit(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the children, too
    console = Console()
    if args.web:
        return web(args, console)
    results = compare(args, console)
    (args.out / "results.json").write_text(json.dumps(results))
    console.print(report.table(results, console.width >= WIDE))
    for line in report.failures(results):
        console.print(line, style="red", markup=False, highlight=False)
    if results["interrupted"]:
        console.print("Interrupted: this is what was measured so far.")
    if not any(not run["error"] for run in results["runs"]):
        return "nothing could be measured"
    if args.old:
        console.print(report.ratios(results, args.old))
    report.picture(results, args.out / "comparison.png", args.out / "comparison-dark.png")
    report.page(results, args.out / "report.html")
    for name in ("comparison.png", "report.html", "results.json", "samples.csv.gz"):
        console.print(os.path.relpath(args.out / name), soft_wrap=True, highlight=False)
    return int(any(run["error"] for run in results["runs"]))


if __name__ == "__main__":
    sys.exit(main())
