"""Compare the server models under the same load, and end with a table, a picture and a report.

.venv/bin/python -m load_tests.compare                        all models; about 75 seconds
.venv/bin/python -m load_tests.compare --seconds 1            a quick look
.venv/bin/python -m load_tests.compare 03_epoll my/server.py --users 100 --load no-think-time
.venv/bin/python -m load_tests.compare --web 01_blocking      Locust's own page
.venv/bin/python -m load_tests.compare --workers 2 --master-bind-host 192.168.1.10
.venv/bin/python -m load_tests.compare --join 192.168.1.10    on two other machines
"""

import contextlib
import csv
import datetime
import gzip
import io
import itertools
import json
import math
import os
import signal
import sys
from dataclasses import asdict, fields
from pathlib import Path

from rich.progress import track

from clients.console.argtypes import command_parser, number, numbers
from clients.system import processes
from clients.system.processes import LaunchError
from load_tests.harness import phrases, report, results, runs, stats
from load_tests.harness.evaluation import evaluate
from load_tests.harness.files import CannotWrite, Screen, lines, locked, save
from load_tests.harness.results import Comparison, FailedRun, RunConfig

HERE = Path(__file__).resolve().parent
WIDE = 130  # columns of a terminal that holds the whole table


def descriptors(config, loads):
    """Return the descriptors that one process of a comparison needs, and some more."""
    if config.loop == "open":
        visitors = min(10_000, 1.1 * max(loads) * config.seconds / config.processes)
        return math.ceil(visitors * (1 + config.retries)) + 100
    left = config.seconds / config.timeout if config.timeout else 0  # they stay half-open
    return math.ceil((max(loads) + config.slow_requests) * (1 + left)) + 100


def options(arguments=None):
    """Return the command line's options; exits with one line if they make no sense.

    Besides, they have config, a RunConfig; programs: paths; loads: users, or arrivals per second.
    """
    parser = command_parser(__doc__)
    add, some, length = parser.add_argument, number(int, 0, 1000), number(float, 0, 3600)
    counts, rates = numbers(int, 1, 20_000), numbers(float, 0.01, 20_000)
    add("servers", nargs="*", metavar="MODEL|PATH", help="default: all models")
    add("--users", type=counts, metavar="N,N,...", help="default: 1,10,50,200")
    add("--load", choices=results.USER_CLASSES, default="think-time")
    add("--arrivals", type=rates, metavar="RATE,...", help="open loop: visitors per second")
    for name, kind, default, words in (
        ("--seconds", number(float, 0.5, 3600), 5.0, "length of each run"),
        ("--repeat", number(int, 1, 1000), 1, "runs of each server and load, in turn"),
        ("--seed", number(int, 0, 10**9), 1, "seed of arrivals and think times"),
        ("--backlog", number(int, 0, 65_535), 5, "backlog of each server"),
        ("--wait", length, 0.0, "seconds that each greeting waits"),
        ("--compute", length, 0.0, "seconds that each greeting computes"),
        ("--slow-requests", some, 0, "users to which alone --wait and --compute apply"),
        ("--switch-interval", number(float, 1e-6, 10), sys.getswitchinterval(), "of the GIL, in s"),
        ("--timeout", length, 0.0, "seconds after which visitors give up; 0: never"),
        ("--retries", some, 0, "how often they try again"),
        ("--processes", number(int, 1, 64), 1, "Locust processes"),
        ("--workers", some, 0, "number of workers that join"),
        ("--master-bind-host", str, "127.0.0.1", "this machine's address, for workers"),
        ("--join", str, None, "be a worker of the comparison at this address"),
        ("--out", Path, HERE / "results", "folder of the results"),
        ("--web", str, None, "open Locust's page on this server"),
    ):
        add(name, type=kind, default=default, help=words)
    add("--no-pictures", dest="pictures", action="store_false", help="quicker: table and numbers")
    args = parser.parse_args(arguments)
    if args.arrivals and args.load != "think-time":
        parser.error("--arrivals are visitors with think time: leave out --load")
    if args.slow_requests and not (args.wait or args.compute):
        parser.error("--slow-requests needs --compute or --wait, which make them slow")
    if args.retries and not args.timeout:
        parser.error("--retries needs --timeout")
    if args.workers and args.processes > 1:
        parser.error("--workers and --processes exclude each other")
    args.loop = "open" if args.arrivals else "closed"
    args.processes, args.repeats = args.workers or args.processes, args.repeat
    usual = [users for users in (1, 10, 50, 200) if users >= args.processes]
    args.loads = args.arrivals or args.users or usual or [args.processes]
    if not args.arrivals and min(args.loads) < args.processes:
        parser.error("--users takes one for each of the --processes or --workers, or more")
    try:
        names = [args.web] if args.web else args.servers
        args.programs = [*map(processes.find_server, names)] or [*processes.models().values()]
    except LaunchError as error:
        parser.error(lines(str(error)))
    args.out = args.out.resolve()
    args.config = RunConfig(**{one.name: getattr(args, one.name) for one in fields(RunConfig)})
    return args


def compare(args, console):
    """Return the Comparison of all runs, interrupted or not, and the bytes of samples.csv.gz."""
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    found = Comparison(date=date, machine=runs.machine(), config=args.config)
    servers = list(zip(processes.distinct_names(args.programs), args.programs, strict=True))
    order = itertools.product(args.loads, range(args.config.repeats), servers)
    keys = [
        {"model": name, "program": str(program), "load": load, "repeat": repeat}
        for load, repeat, (name, program) in order
    ]
    bar = track(keys, "time left", console=console, disable=not console.is_terminal)
    packed = io.BytesIO()  # not a file: a disk that fills up takes nothing away
    with gzip.open(packed, "wt", 1) as file, contextlib.closing(bar):
        table = csv.writer(file)
        table.writerow(results.COLUMNS)
        try:
            for key in bar:
                console.print(f"{key['model']}, {phrases.load_text(args.config, key['load'])}")
                try:
                    recorded = runs.record(args.config, args.out, args.master_bind_host, **key)
                except (LaunchError, runs.RunError) as error:
                    console.print(f"{key['model']}, {key['load']:g}: {error}", style="red")
                    found.failed_runs.append(FailedRun(**key, error=lines(str(error))))
                    continue
                found.runs.append(evaluate(recorded, **key))
                table.writerows(results.row(found.runs[-1], one) for one in recorded.samples)
        except KeyboardInterrupt:
            interruptible(False)
            found.interrupted = True
    return found, packed.getvalue()


def web(args, console):
    """Run one server and Locust's page for it, until Ctrl-C."""
    with processes.running_server(args.programs[0], *runs.server_options(args.config)) as server:
        host, port = server.address
        port_of_page = runs.free_port(8089)
        console.print(f"{processes.server_name(server.program)} listens on {host}:{port}.")
        console.print(f"Open http://127.0.0.1:{port_of_page}/?tab=server: New starts the load.")
        console.print("Ctrl-C ends both.")
        options = "--config", "load_tests/locust.conf", "--server-pid", server.process.pid
        with contextlib.suppress(KeyboardInterrupt):
            runs.locust(*options, "--web-port", port_of_page, "--host", f"tcp://{host}:{port}")


def finish(found, packed, args, console):
    """Write, show and draw a Comparison, each whatever failed before; return the exit status."""
    interruptible(False)  # not even by a second Ctrl-C: this takes no time
    raw = ("results.json", json.dumps(asdict(found))), ("samples.csv.gz", packed)
    written = write(raw, args.out, console)
    summary = stats.summarise(found)
    console.print(report.table(summary, console.width >= WIDE))
    for line in phrases.failures(found):
        console.print(line, style="red")
    if found.interrupted:
        console.print("Interrupted: this is what was measured so far.")
    if not found.runs:
        return "nothing could be measured"
    interruptible(True)
    if args.pictures:
        written += write(draw(summary), args.out, console)
    for name in written:
        console.print(os.path.relpath(args.out / name), soft_wrap=True)
    broken = found.failed_runs or any(run.outcomes.all_failed for run in found.runs)
    return int(bool(broken) or len(written) < (5 if args.pictures else 2))


def draw(summary):
    """Yield the name and the content of each picture, and of the page."""
    from load_tests.harness import charts, figures  # not at the top: matplotlib takes half a second

    config, rows = summary.results.config, summary.heaviest
    title = f"The same load for each server: {phrases.load_text(config, rows[0].load)}"
    note = f"{phrases.asked(summary.results)} {phrases.limits(rows)}"
    light = charts.picture(figures.of_picture(summary), title, note)
    yield "comparison.png", light
    yield "comparison-dark.png", charts.darken(light)
    drawn = {name: charts.png(panel) for name, panel in figures.of_report(summary).items()}
    yield "report.html", report.page(summary, drawn)


def write(files, folder, console):
    """Write files, pairs of name and content; report those that fail, return the others' names."""
    written = []
    try:
        for name, content in files:
            try:
                save(folder / name, content)
                written.append(name)
            except OSError as error:
                console.print(f"{name} could not be written: {error.strerror}", style="red")
    except KeyboardInterrupt:
        console.print("Interrupted: what was not drawn yet is not written.")
    return written


def interruptible(yes):
    """Let Ctrl-C and SIGTERM raise KeyboardInterrupt, so that the children end, or do nothing."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.default_int_handler if yes else signal.SIG_IGN)


def main():
    processes.require_linux()
    args, console = options(), Screen()
    interruptible(True)
    try:
        processes.raise_nofile_limit(0 if args.join else descriptors(args.config, args.loads))
        if args.join:
            return runs.join(args.join, console.print)
        if args.web:
            return web(args, console)
        with locked(args.out):
            return finish(*compare(args, console), args, console)
    except (LaunchError, CannotWrite) as error:
        return lines(str(error))
    except KeyboardInterrupt:
        return "interrupted"


if __name__ == "__main__":
    sys.exit(main())
