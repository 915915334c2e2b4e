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
import io
import json
import os
import signal
import sys
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn

from clients.console.argtypes import number, numbers
from clients.system.processes import (
    LaunchError,
    find,
    models,
    names_of,
    raise_nofile_limit,
    require_linux,
    running_server,
)
from load_tests.harness import report, runs
from load_tests.harness.files import (
    CannotWrite,
    Screen,
    held,
    lines,
    numbered,
    save,
)
from load_tests.harness.stats import all_failed

HERE = Path(__file__).resolve().parent
USERS = {"visitors": "Visitors", "chatterbox": "Chatterbox", "idlers": "Idlers"}
START = 1.6  # seconds that starting a server and Locust takes, for the time left
WIDE = 130  # columns of a terminal that holds the whole table
DESCRIPTORS = 100  # what a process needs besides its connections


def options(arguments=None):
    """Return the command line's options; exits with one line if they make no sense."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, counts, rates = parser.add_argument, numbers(int, 1, 20_000), numbers(float, 0.01, 20_000)
    add("servers", nargs="*", metavar="MODEL|PATH", help="default: all models")
    add("--users", type=counts, default=[1, 10, 50, 200], metavar="N,N,...")
    add("--seconds", type=number(float, 0.5, 3600), default=5.0, help="length of each run")
    add("--load", choices=USERS, default="visitors")
    add(
        "--arrivals",
        type=rates,
        metavar="RATE,...",
        help="open loop: so many visitors a second (Poisson), instead of --users",
    )
    add("--backlog", type=number(int, 0, 65_535), default=5)
    add("--wait", type=number(float, 0, 3600), default=0.0, help="seconds each greeting waits")
    add("--compute", type=number(float, 0, 3600), default=0.0, help="seconds each one computes")
    add(
        "--heavy",
        type=number(int, 0, 1000),
        default=0,
        metavar="N",
        help="N more users, and --wait and --compute are for their greetings alone",
    )
    add(
        "--switch-interval",
        type=number(float, 1e-6, 10),
        default=sys.getswitchinterval(),
        metavar="S",
        help="with --heavy: sys.setswitchinterval() of the server",
    )
    add("--processes", type=number(int, 1, 64), default=1, help="Locust processes")
    add("--out", type=Path, default=HERE / "results", metavar="DIR")
    add("--against", type=Path, metavar="RESULTS.JSON", help="print the ratios")
    add("--web", metavar="MODEL|PATH", help="open Locust's page on one server")
    args = parser.parse_args(arguments)
    if args.arrivals and args.load != "visitors":
        parser.error("--arrivals are visitors: leave out --load")
    if args.heavy and not (args.wait or args.compute):
        parser.error("--heavy needs --compute or --wait: that is what is heavy")
    if not args.arrivals and min(args.users) < args.processes:
        parser.error("--users takes one for each of the --processes or more")
    args.loads = args.arrivals or args.users
    args.out = args.out.resolve()
    args.user = "Arrivals" if args.arrivals else USERS[args.load]
    try:
        names = [args.web] if args.web else args.servers
        args.programs = [find(name) for name in names] or list(models().values())
        args.old = report.read(args.against) if args.against else None
    except (LaunchError, OSError, ValueError) as error:
        parser.error(lines(str(error)))
    return args


def compare(args, console):
    """Run each program under each load; return the results and the samples (bytes, CSV in gzip).

    It does so when it is interrupted, too.
    """
    results = {
        "schema": report.SCHEMA,
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": runs.machine(),
        "options": {
            "load": args.load,
            "loop": "open" if args.arrivals else "closed",
            "seconds": args.seconds,
            "backlog": args.backlog,
            "wait": args.wait,
            "compute": args.compute,
            "heavy": args.heavy,
            "switch_interval": args.switch_interval,
            "processes": args.processes,
        },
        "interrupted": False,
        "runs": [],
    }
    servers = list(zip(numbered(names_of(args.programs)), args.programs, strict=True))
    plan = [(*server, load) for load in args.loads for server in servers]
    packed = io.BytesIO()  # not a file: a disk that fills up takes nothing away
    with gzip.open(packed, "wt", 1) as file:
        samples = csv.writer(file)
        samples.writerow(["model", "load", "visitor", "what", "began", "ended", "outcome"])
        try:
            with progress(console) as bar:
                task = bar.add_task("", total=len(plan), left="")
                for done, (name, program, load) in enumerate(plan):
                    left = (len(plan) - done) * (args.seconds + START)
                    text = f"{name}, {report.load_text(results, load)}"
                    bar.update(task, description=text, left=f"about {left:.0f} s left")
                    if not console.is_terminal:
                        console.print(text)
                    entry = {"model": name, "program": str(program), "load": load, "error": None}
                    results["runs"].append(entry | measure(entry, args, samples, console))
                    bar.update(task, advance=1, left="done")
        except KeyboardInterrupt:
            interruptible(False)
            results["interrupted"] = True
    return results, packed.getvalue()


def progress(console):
    """Return a bar that shows what runs now and how long all of it will still take."""
    texts = ("{task.completed}/{task.total}", "{task.fields[left]}")
    name = TextColumn("{task.description:32}", markup=False)
    columns = [name, BarColumn(), *map(TextColumn, texts)]
    return Progress(*columns, console=console, disable=not console.is_terminal)


def measure(entry, args, samples, console):
    """Return what one run adds to its entry in the results, and write its samples."""
    name, load = entry["model"], entry["load"]
    try:
        found, rows = runs.run(Path(entry["program"]), load, args, name)
    except (LaunchError, runs.RunError) as error:
        console.print(f"{name}, {load:g}: ", end="", style="red")
        console.print(str(error))
        return {"error": lines(str(error))}
    start = min(began for _, _, began, _, _ in rows)
    for visitor, what, began, ended, outcome in rows:
        times = f"{began - start:.6f}", f"{ended - start:.6f}"
        samples.writerow([name, load, visitor, what, *times, outcome])
    return found


def web(args, console):
    """Run one server and Locust's page for it, until Ctrl-C."""
    with running_server(args.programs[0], *runs.settings(args)) as server:
        host, port = server.address
        page = runs.free_port(8089)
        options = ["--config", HERE / "locust.conf", "--locustfile", runs.LOCUSTFILE]
        options += ["--web-port", page, "--server-pid", server.process.pid]
        console.print(f"{names_of(args.programs)[0]} listens on {host}:{port}.")
        console.print(f"Open http://127.0.0.1:{page} and look at the tab Server.")
        console.print("Ctrl-C ends both.")
        with contextlib.suppress(KeyboardInterrupt):
            runs.locust(*options, "--host", f"tcp://{host}:{port}")


def finish(results, samples, args, console):
    """Write and show what was measured, then draw it; return the exit status, or what went wrong.

    Nothing that goes wrong takes away what comes after it.
    """
    interruptible(False)  # not even by a second Ctrl-C: this takes no time
    ran = {"results.json": lambda path: save(path, json.dumps(results))}
    ran["samples.csv.gz"] = lambda path: save(path, samples)
    written = write(ran, args.out, console)
    console.print(report.table(results, console.width >= WIDE))
    for line in report.failures(results):
        console.print(line, style="red")
    if results["interrupted"]:
        console.print("Interrupted: this is what was measured so far.")
    if all(run["error"] for run in results["runs"]):
        return "nothing could be measured"
    if args.old:
        console.print(report.ratios(results, args.old))
        console.print(report.differences(results, args.old), end="")
    interruptible(True)
    drawn = {
        "comparison.png": lambda path: report.picture(results, path),
        "comparison-dark.png": lambda path: report.darken(path.with_name("comparison.png"), path),
        "report.html": lambda path: report.page(results, path),
    }
    written += write(drawn, args.out, console)
    for name in written:
        console.print(os.path.relpath(args.out / name), soft_wrap=True)
    broken = [run for run in results["runs"] if run["error"] or all_failed(run["scoreboard"])]
    return int(bool(broken) or len(written) < len(ran) + len(drawn))


def write(files, folder, console):
    """Call each of files, {name: function(path)}; say which of them failed, return the others."""
    written = []
    for name, make in files.items():
        try:
            make(folder / name)
            written.append(name)
        except OSError as error:
            console.print(f"{name} could not be written: {error.strerror}", style="red")
        except KeyboardInterrupt:
            console.print(f"Interrupted: {name} and what comes after it was not written.")
            break
    return written


def interruptible(yes):
    """Let Ctrl-C and SIGTERM raise KeyboardInterrupt, so that the children end, or do nothing."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.default_int_handler if yes else signal.SIG_IGN)


def main():
    require_linux()
    args, console = options(), Screen()
    interruptible(True)
    try:
        raise_nofile_limit(0 if args.arrivals else max(args.users) + DESCRIPTORS)
        if args.web:
            return web(args, console)
        with held(args.out):
            return finish(*compare(args, console), args, console)
    except (LaunchError, CannotWrite) as error:
        return lines(str(error))
    except KeyboardInterrupt:
        return "interrupted"


if __name__ == "__main__":
    sys.exit(main())
