"""One run: a server, Locust that loads it, and a watcher; what they give as numbers."""

import contextlib
import json
import os
import platform
import shutil
import socket
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

from clients.system.processes import ROOT, module_command, running_server, spawn, tail, temp_dir
from clients.system.procfs import accept_queue_limit
from load_tests.harness import stats
from load_tests.harness.monitor import watching
from load_tests.harness.warm import warm

LOCUSTFILE = ROOT / "load_tests" / "locustfile.py"
HEAVY = Path(__file__).with_name("slow_requests.py")
FULL = 2**20  # bytes: a disk with less room than this explains what is missing
SLACK = 60  # seconds after which a Locust that should have ended is killed


class RunError(RuntimeError):
    """A run that gave no numbers, and why."""


def run(program, load, args, name):
    """Return the numbers of one program under one load, and its samples; see README.md.

    args: compare.py's options. name: what the program is called. Raises LaunchError or RunError.
    """
    page = f"locust-{name}-{load:g}.html"
    (args.out / page).parent.mkdir(exist_ok=True, parents=True)  # friend/03_epoll
    wrapper = (HEAVY, args.switch_interval) if args.heavy else ()
    with running_server(program, *settings(args), wrapper=wrapper) as server:
        warm(server.address)
        with watching(server.process, server.address[1]) as readings:
            journal = journal_of(server.address, load, args, args.out / page)
        if server.process.poll() is not None:
            raise RunError(f"it {server.describe_exit()}")
    numbers = {"locust": page, **stats.summary(journal["samples"])}
    numbers["server"] = costs(readings, numbers["greetings"], args.backlog)
    numbers["generator"] = generator(journal["generators"].values())
    numbers["errors"], numbers["locust_counted"] = journal["errors"], journal["locust"]
    return numbers, journal["samples"]


def settings(args):
    """Return the options with which every server is started."""
    return ["--quiet", "--backlog", args.backlog, "--wait", args.wait, "--compute", args.compute]


def journal_of(address, load, args, page):
    """Let Locust load the server at address, and write its report to page; return its journal."""
    host, port = address
    users = (args.processes if args.arrivals else load) + args.heavy
    classes = [args.user]
    with temp_dir() as place:
        journal, log = Path(place, "journal.json"), Path(place, "log")
        options = ["-f", LOCUSTFILE, "--headless", "-u", users, "-r", users]
        options += ["--host", f"tcp://{host}:{port}", "--seconds", args.seconds]
        options += ["--journal", journal, "--html", page]
        options += ["--exit-code-on-error", 0, "--only-summary", "--loglevel", "WARNING"]
        if args.arrivals:
            options += ["--arrivals", load]
        if args.processes > 1:
            options += together(args.processes)
        if args.heavy:
            options += ["--heavy", args.heavy]
            classes.append("Heavy")
        with open(log, "wb") as output:
            locust(*options, *classes, output=output, timeout=args.seconds + SLACK)
        words = f"Locust's last words: {tail(log.read_text(errors='replace'))}"
        if shutil.disk_usage(place).free < FULL:
            words += f"\nThere is no room left in {place}"
        try:
            content = json.loads(journal.read_text())
        except (OSError, ValueError):
            raise RunError(f"Locust gave no numbers. {words}") from None
    if not content["samples"]:
        raise RunError(f"not one visitor came. {words}")
    return content


def together(processes):
    """Return the options that make Locust run as a master and so many workers of this machine."""
    port = free_port()  # 5557 may be another run's master
    options = ["--processes", processes, "--expect-workers", processes]
    options += ["--workers-in-all", processes, "--master-bind-host", "127.0.0.1"]
    return [*options, "--master-bind-port", port, "--master-port", port]


def free_port(wanted=0):
    """Return a free port of 127.0.0.1: the wanted one if it is free."""
    try:
        with socket.create_server(("127.0.0.1", wanted)) as free:
            return free.getsockname()[1]
    except OSError:
        return free_port()


def locust(*options, output=subprocess.DEVNULL, timeout=None, core=None):
    """Run Locust to its end, or until timeout seconds have passed; leave nothing of it behind.

    output: a file for what it says. core: the one processor core on which it runs.
    """
    streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
    # From ROOT, Locust finds the rest of the repository.
    with spawn(module_command("locust", *options), cwd=ROOT, **streams) as process:
        if core is not None:
            process.cpu_affinity([core])
        with contextlib.suppress(psutil.TimeoutExpired):  # what it left in its log is reported
            process.wait(timeout)


def costs(readings, greetings, backlog):
    """Return what the server used for so many greetings, from the readings of its run."""
    first, last = readings[0], readings[-1]

    def most(name):
        return max(reading[name] for reading in readings)

    def more(name):
        return last[name] - first[name]

    connections = most("descriptors") - first["descriptors"]
    return {
        "cpu_seconds": more("cpu"),
        "cpu_us_per_greeting": per(more("cpu") * 1e6, greetings),
        "cpu_share": more("cpu") / more("at"),
        "switches_per_greeting": per(more("switches"), greetings),
        "rss_start": first["rss"],
        "rss_most": most("rss"),
        "connections_most": connections,
        "rss_per_connection": per(most("rss") - first["rss"], connections),
        "threads_most": most("threads"),
        "descriptors_most": most("descriptors"),
        "accept_queue_most": most("accept_queue"),
        "accept_queue_limit": accept_queue_limit(backlog),
        "syn_sent_most": max(reading["clients"].get("SYN-SENT", 0) for reading in readings),
        "listen_overflows": more("ListenOverflows"),
        "listen_drops": more("ListenDrops"),
        "readings": readings,
    }


def per(amount, count):
    """Return amount for each of count, None if there are none."""
    return amount / count if count else None


def generator(processes):
    """Return how Locust's processes fared themselves, and whether they were the bottleneck."""
    lags = sorted(lag for seen in processes for lag in seen["lag"]) or [0.0]
    cpu = max((seen["cpu"] for seen in processes), default=0.0)
    late = stats.nearest_rank(lags, 99) * 1000
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
