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
import signal
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from clients.system.launch import LaunchError, find, make_room, models, name_of, running
from clients.system.options import number, numbers
from load_tests.measuring import report, runs

HERE = Path(__file__).resolve().parent
SCHEMA = 1
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


def compare(args, console):
    """Run each program under each load; return the results, of an interrupted comparison too."""
    results = {
        "schema": SCHEMA,
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
    plan = [(program, load) for load in args.loads for program in args.programs]
    with progress(console) as bar, gzip.open(args.out / "samples.csv.gz", "wt", 1) as file:
        samples = csv.writer(file)
        samples.writerow(["model", "load", "visitor", "what", "began", "ended", "outcome"])
        task = bar.add_task("", total=len(plan), left="")
        try:
            for done, (program, load) in enumerate(plan):
                left = (len(plan) - done) * (args.seconds + START)
                text = f"{name_of(program)}, {report.load_text(results, load)}"
                bar.update(task, description=text, left=f"about {left:.0f} s left")
                if not console.is_terminal:
                    console.print(text)
                results["runs"].append(measure(program, load, args, samples, console))
                bar.update(task, advance=1, left="done")
        except KeyboardInterrupt:
            results["interrupted"] = True
    return results


def progress(console):
    """Return a bar that shows what runs now and how long all of it will still take."""
    texts = ("{task.completed}/{task.total}", "{task.fields[left]}")
    columns = [TextColumn("{task.description:32}"), BarColumn(), *map(TextColumn, texts)]
    return Progress(*columns, console=console, disable=not console.is_terminal)


def measure(program, load, args, samples, console):
    """Return one run's entry in the results, and write its samples; an error is an entry, too."""
    entry = {"model": name_of(program), "program": str(program), "load": load, "error": None}
    try:
        found, rows = runs.run(program, load, args)
    except (LaunchError, runs.RunError) as error:
        console.print(f"[red]{entry['model']}, {load:g}:[/] ", end="")
        console.print(str(error), markup=False, highlight=False)
        return entry | {"error": str(error)}
    start = min(began for _, _, began, _, _ in rows)
    for visitor, what, began, ended, outcome in rows:
        times = f"{began - start:.6f}", f"{ended - start:.6f}"
        samples.writerow([entry["model"], load, visitor, what, *times, outcome])
    return entry | found


def web(args, console):
    """Run one server and Locust's page for it, until Ctrl-C."""
    with running(args.programs[0], *runs.settings(args)) as server:
        host, port = server.address
        page = runs.free_port(8089)
        options = ["--config", HERE / "locust.conf", "--locustfile", runs.LOCUSTFILE]
        options += ["--web-port", page, "--server-pid", server.process.pid]
        console.print(f"{server.name} listens on {host}:{port}.")
        console.print(f"Open http://127.0.0.1:{page} and look at the tab Server.")
        console.print("Ctrl-C ends both.")
        with contextlib.suppress(KeyboardInterrupt):
            runs.locust(*options, "--host", f"tcp://{host}:{port}")


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
    if all(run["error"] for run in results["runs"]):
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
