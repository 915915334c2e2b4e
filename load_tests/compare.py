"""Compare the server models under the same load, and end with a table, a picture and a report.

.venv/bin/python -m load_tests.compare                        all models; about 90 seconds
.venv/bin/python -m load_tests.compare --seconds 1            a quick look
.venv/bin/python -m load_tests.compare 03_epoll my/server.py --users 100 --load no-think-time
.venv/bin/python -m load_tests.compare --web 01_blocking      Locust's own page
.venv/bin/python -m load_tests.compare --workers 2 --master-bind-host 192.168.1.10
.venv/bin/python -m load_tests.compare --join 192.168.1.10    on two other machines
"""

import contextlib
import csv
import datetime
import functools
import gzip
import io
import ipaddress
import math
import os
import signal
import sys
from dataclasses import dataclass, fields
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn

from clients.console.argtypes import command_parser, number, numbers
from clients.system import processes
from clients.system.processes import LaunchError
from load_tests.harness import phrases, report, results, runs, samples, stats, workers
from load_tests.harness.files import CannotWrite, Screen, lines, locked, save
from load_tests.harness.results import Comparison, FailedRun, RunConfig

HERE = Path(__file__).resolve().parent
START = 1.6  # seconds that starting a server and Locust takes, for the time left
WIDE = 130  # columns of a terminal that holds the whole table
DESCRIPTORS = 100  # what a process needs besides its connections


@dataclass(frozen=True)
class Plan:
    """What a comparison is to run, from the command line."""

    config: RunConfig
    programs: list[Path]
    loads: list[float]  # users, or arrivals per second
    out: Path
    old: Comparison | None  # of --against
    pictures: bool  # draw them, and write the page
    web: bool  # open Locust's page on the first program instead
    address: str  # where workers may join
    join: str | None  # be a worker of the comparison there instead

    def connections(self):
        """Return the most connections that one process opens at a time."""
        config = self.config
        if config.loop == "closed":
            patient = max(self.loads) + config.slow_requests
            left = config.seconds / config.timeout if config.timeout else 0
            return math.ceil(patient * (1 + left))  # those of visitors that left stay half-open
        visitors = max(self.loads) * config.seconds / config.processes
        return math.ceil(min(10_000, 1.1 * visitors) * (1 + config.retries))


def options(arguments=None):
    """Return the Plan of the command line; exits with one line if the options make no sense."""
    parser = command_parser(__doc__)
    add, counts, rates = parser.add_argument, numbers(int, 1, 20_000), numbers(float, 0.01, 20_000)
    some, length = number(int, 0, 1000), number(float, 0, 3600)
    add("servers", nargs="*", metavar="MODEL|PATH", help="default: all models")
    add("--users", type=counts, default=[1, 10, 50, 200], metavar="N,N,...")
    add("--seconds", type=number(float, 0.5, 3600), default=5.0, help="length of each run")
    words = "runs of each, in turn"
    add("--repeat", dest="repeats", type=number(int, 1, 1000), default=1, metavar="N", help=words)
    add("--seed", type=number(int, 0, 10**9), default=1, help="of arrivals and think times")
    add("--load", choices=results.USER_CLASSES, default="think-time")
    words = "open loop: visitors per second (Poisson), instead of --users"
    add("--arrivals", type=rates, metavar="RATE,...", help=words)
    add("--backlog", type=number(int, 0, 65_535), default=5)
    add("--wait", type=length, default=0.0, help="seconds each greeting waits")
    add("--compute", type=length, default=0.0, help="seconds each one computes")
    words = "N more users; --wait and --compute are for their greetings alone"
    add("--slow-requests", type=some, default=0, metavar="N", help=words)
    words = "with --slow-requests: sys.setswitchinterval() of the server"
    kind, usual = number(float, 1e-6, 10), sys.getswitchinterval()
    add("--switch-interval", type=kind, default=usual, metavar="S", help=words)
    words = "visitors give up after S seconds without an answer"
    add("--timeout", type=length, default=0.0, metavar="S", help=words)
    add("--retries", type=some, default=0, metavar="N", help="with --timeout: they try again")
    add("--processes", type=number(int, 1, 64), default=1, help="Locust processes")
    add("--workers", type=number(int, 0, 1000), default=0, metavar="N", help="wait for N --join")
    words = "an address of this machine, for the server and the workers"
    add("--master-bind-host", type=ip_address, default="127.0.0.1", metavar="ADDRESS", help=words)
    words = "make load for the comparison at this address, until it ends"
    add("--join", metavar="ADDRESS", help=words)
    add("--out", type=Path, default=HERE / "results", metavar="DIR")
    add("--against", type=Path, metavar="RESULTS.JSON", help="print the ratios; needs --repeat")
    words = "write the table, results.json and samples.csv.gz alone"
    add("--no-pictures", dest="pictures", action="store_false", help=words)
    add("--web", metavar="MODEL|PATH", help="open Locust's page on one server")
    args = parser.parse_args(arguments)
    if args.arrivals and args.load != "think-time":
        parser.error("--arrivals are visitors with think time: leave out --load")
    if args.slow_requests and not (args.wait or args.compute):
        parser.error("--slow-requests needs --compute or --wait, which make them slow")
    if args.retries and not args.timeout:
        parser.error("--retries needs --timeout")
    if args.workers and args.processes > 1:
        parser.error("--workers and --processes exclude each other")
    args.processes = args.workers or args.processes
    if not args.arrivals and min(args.users) < args.processes:
        parser.error("--users takes one for each of the --processes or --workers, or more")
    try:
        names = [args.web] if args.web else args.servers
        programs = [*map(processes.find_server, names)] or [*processes.models().values()]
        old = results.read(args.against) if args.against else None
    except (LaunchError, OSError, ValueError) as error:
        parser.error(lines(str(error)))
    if old and min(args.repeats, old.config.repeats) < 2:
        parser.error(
            "--against needs --repeat 2 or more in both comparisons (8 or more give a verdict): "
            "the ratio of two single runs is noise"
        )
    args.loop = "open" if args.arrivals else "closed"
    config = RunConfig(**{one.name: getattr(args, one.name) for one in fields(RunConfig)})
    loads = args.arrivals or args.users
    more = args.pictures, bool(args.web), args.master_bind_host, args.join
    return Plan(config, programs, loads, args.out.resolve(), old, *more)


def ip_address(text):
    """Return the IPv4 address of one machine, as text. Raises ValueError."""
    address = ipaddress.IPv4Address(text)
    if address.is_unspecified:
        raise ValueError(f"{text} is no address that workers can connect to")
    return text


def compare(plan, joined, console):
    """Return the Comparison of all runs, interrupted or not, and the bytes of samples.csv.gz."""
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    found = Comparison(date=date, machine=runs.machine(), config=plan.config)
    servers = list(zip(processes.distinct_names(plan.programs), plan.programs, strict=True))
    keys = [
        {"model": name, "program": str(program), "load": load, "repeat": repeat}
        for load in plan.loads
        for repeat in range(plan.config.repeats)
        for name, program in servers
    ]
    packed = io.BytesIO()  # not a file: a disk that fills up takes nothing away
    with gzip.open(packed, "wt", 1) as file:
        table = csv.writer(file)
        table.writerow(samples.COLUMNS)
        try:
            with progress(console) as bar:
                task = bar.add_task("", total=len(keys), left="")
                for done, key in enumerate(keys):
                    left = (len(keys) - done) * (plan.config.seconds + START)
                    text = f"{key['model']}, {phrases.load_text(plan.config, key['load'])}"
                    bar.update(task, description=text, left=f"about {left:.0f} s left")
                    if not console.is_terminal:
                        console.print(text)
                    measure(key, plan, joined, found, table, console)
                    bar.update(task, advance=1, left="done")
        except KeyboardInterrupt:
            interruptible(False)
            found.interrupted = True
    return found, packed.getvalue()


def measure(key, plan, joined, found, table, console):
    """Add one run to a Comparison, and its samples to a csv.writer."""
    try:
        run, its_samples = runs.run(plan.config, plan.out, joined, **key)
    except (LaunchError, runs.RunError) as error:
        console.print(f"{key['model']}, {key['load']:g}: ", end="", style="red")
        console.print(str(error))
        found.failed_runs.append(FailedRun(**key, error=lines(str(error))))
        return
    found.runs.append(run)
    table.writerows(samples.row(run, sample) for sample in its_samples)


def progress(console):
    """Return a bar that shows what runs now and how long all of it will still take."""
    texts = ("{task.completed}/{task.total}", "{task.fields[left]}")
    name = TextColumn("{task.description:32}", markup=False)
    columns = [name, BarColumn(), *map(TextColumn, texts)]
    return Progress(*columns, console=console, disable=not console.is_terminal)


def web(plan, console):
    """Run one server and Locust's page for it, until Ctrl-C."""
    with processes.running_server(plan.programs[0], *runs.server_options(plan.config)) as server:
        host, port = server.address
        port_of_page = runs.free_port(8089)
        options = ["--config", HERE / "locust.conf"]
        options += ["--web-port", port_of_page, "--server-pid", server.process.pid]
        console.print(f"{processes.distinct_names(plan.programs)[0]} listens on {host}:{port}.")
        console.print(f"Open http://127.0.0.1:{port_of_page}/?tab=server: New starts the load.")
        console.print("Ctrl-C ends both.")
        with contextlib.suppress(KeyboardInterrupt):
            runs.locust(*options, "--host", f"tcp://{host}:{port}")


def finish(found, packed, plan, console):
    """Write, show and draw a Comparison, each whatever failed before; return the exit status."""
    interruptible(False)  # not even by a second Ctrl-C: this takes no time
    raw = {"results.json": lambda: results.dumps(found), "samples.csv.gz": lambda: packed}
    written = write(raw, plan.out, console)
    summary = stats.summarise(found)
    changes = stats.ratios(found, plan.old, report.RATIOS) if plan.old else {}
    console.print(report.table(summary, console.width >= WIDE))
    for line in phrases.failures(found):
        console.print(line, style="red")
    if found.interrupted:
        console.print("Interrupted: this is what was measured so far.")
    if not found.runs:
        return "nothing could be measured"
    if plan.old:
        console.print(report.ratio_table(changes, found, plan.old))
        console.print(phrases.differences(found, plan.old), end="")
    interruptible(True)
    drawn = draw(summary) if plan.pictures else {}
    written += write(drawn, plan.out, console)
    for name in written:
        console.print(os.path.relpath(plan.out / name), soft_wrap=True)
    broken = found.failed_runs or any(run.outcomes.all_failed for run in found.runs)
    return int(bool(broken) or len(written) < len(raw) + len(drawn))


def draw(summary):
    """Return {file: function()} of the pictures and the page; a function returns the content."""
    from load_tests.harness import charts, figures  # not at the top: matplotlib takes half a second

    main, others = figures.of_picture(summary), figures.of_report(summary)
    config, rows = summary.results.config, summary.heaviest
    title = f"The same load for each server: {phrases.load_text(config, rows[0].load)}"
    note = f"{phrases.asked(summary.results)} {phrases.limits(config, rows)}"

    @functools.cache
    def light():
        return charts.picture([one.draw for one in main], title, note)

    def html():
        return report.page(summary, {name: charts.png(one.draw) for name, one in others.items()})

    dark = {"comparison-dark.png": lambda: charts.darken(light())}
    return {"comparison.png": light, **dark, "report.html": html}


def write(files, folder, console):
    """Write each of files, {name: function()}; report those that fail, return the others."""
    written = []
    for name, make in files.items():
        try:
            save(folder / name, make())
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
    processes.require_linux()
    plan, console = options(), Screen()
    interruptible(True)
    try:
        if plan.join:
            processes.raise_nofile_limit()
            return workers.join(plan.join, console.print)
        processes.raise_nofile_limit(plan.connections() + DESCRIPTORS)
        if plan.web:
            return web(plan, console)
        with locked(plan.out):
            with workers.joined(plan.address, plan.config.workers, console.print) as joined:
                found = compare(plan, joined, console)
            return finish(*found, plan, console)
    except (LaunchError, CannotWrite) as error:
        return lines(str(error))
    except KeyboardInterrupt:
        return "interrupted"


if __name__ == "__main__":
    sys.exit(main())
