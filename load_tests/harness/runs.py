"""One run: a server, Locust that loads it, and a monitor; the result is a Run."""

import contextlib
import json
import platform
import shutil
import socket
import subprocess
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import psutil

from clients.console.formatting import count
from clients.system.processes import ROOT, module_command, running_server, spawn, tail, temp_dir
from clients.system.procfs import accept_queue_limit, usable_cores
from load_tests.harness import stats
from load_tests.harness.monitor import loses_child_cpu, watching
from load_tests.harness.results import GeneratorHealth, LocustRow, Machine, Run, ServerUsage
from load_tests.harness.samples import Sample
from load_tests.harness.warm import warm

LOCUSTFILE = Path("load_tests", "locustfile.py")  # in ROOT: Locust would split its path at commas
SLOW_REQUESTS = Path(__file__).with_name("slow_requests.py")
FULL = 2**20  # bytes: a disk with less room than this explains what is missing
SATURATED = 0.8  # of a core, on average: users join during the first quarter of a run
WORKERS_START = 30  # seconds that workers which have joined may take to start Locust
SLACK = 60  # seconds after which a Locust that should have ended is killed


class RunError(RuntimeError):
    """A run that gave no numbers, and why."""


def run(config, out, workers, *, model, program, load, repeat):
    """Return a Run and its Samples; Locust's report is in out. Raises LaunchError or RunError.

    workers: Workers that have joined, or None.
    """
    report = f"locust-{model}-{load:g}{f'-{repeat + 1}' if repeat else ''}.html"
    (out / report).parent.mkdir(exist_ok=True, parents=True)  # friend/03_epoll
    wrapper = (SLOW_REQUESTS, config.switch_interval) if config.slow_requests else ()
    where = ("--host", workers.address) if workers else ()
    with running_server(program, *where, *server_options(config), wrapper=wrapper) as server:
        warm(server.address)
        with watching(server.process, server.address[1]) as readings:
            count = workers.start(f"{model}, {load:g}") if workers else config.processes
            options = load_options(config, load, repeat, count)
            options += several(count, workers and workers.address)
            log = make_load(server.address, options, config, out / report)
        if server.process.poll() is not None:
            raise RunError(f"it {server.describe_exit()}")
        incomplete = loses_child_cpu(server.process)
    samples = [Sample(*one) for one in log["samples"]]
    numbers = stats.summary(samples)
    readings = [replace(one, at=one.at - log["started"]) for one in readings]
    used = usage(readings, numbers, config.backlog, incomplete)
    return Run(
        **numbers,
        model=model,
        program=program,
        load=load,
        repeat=repeat,
        usage=used,
        generator=health(log, numbers["outcomes"].not_started, used.cpu_share),
        errors=log["errors"],
        locust_report=report,
        locust_counted={name: LocustRow(*row) for name, row in log["locust"].items()},
    ), samples


def server_options(config):
    """Return the options with which every server is started."""
    slow = "--wait", config.wait, "--compute", config.compute
    return ["--quiet", "--backlog", config.backlog, *slow]


def load_options(config, amount, repeat, count):
    """Return Locust's options for the users or arrivals of a run. count: Locust processes."""
    slow, is_open = config.slow_requests, config.loop == "open"
    users = (count if is_open else amount) + slow
    options = ["--headless", "-u", users, "-r", users, "--seed", config.seed + repeat]
    options += ["--seconds", config.seconds, "--arrivals", amount, "--slow-requests", max(slow, 1)]
    return [*options, "--timeout", config.timeout, "--retries", config.retries]


def make_load(address, options, config, page):
    """Let Locust load a server and write its report to page; return the content of its log."""
    classes = [config.user_class, *(["SlowRequestUser"] if config.slow_requests else [])]
    with temp_dir() as place:
        sample_log, output = Path(place, "samples.json"), Path(place, "output")
        report = Path(place, "report.html")  # in the name of a report Locust replaces {u} and more
        options += ["-f", LOCUSTFILE, "--host", "tcp://%s:%d" % address]
        options += ["--sample-log", sample_log, "--html", report, "--exit-code-on-error", 0]
        options += ["--only-summary", "--loglevel", "WARNING", *classes]
        with open(output, "wb") as file:
            locust(*options, output=file, timeout=config.seconds + SLACK)
        with contextlib.suppress(OSError):  # no report, or no room for it: the numbers are here
            shutil.move(report, page)
        words = f"Locust's last words: {tail(output.read_text(errors='replace'))}"
        if shutil.disk_usage(place).free < FULL:
            words += f"\nThere is no room left in {place}"
        try:
            content = json.loads(sample_log.read_text())
        except (OSError, ValueError):
            raise RunError(f"Locust gave no numbers. {words}") from None
    if not content["samples"]:
        raise RunError(f"there was no visitor. {words}")
    return content


def several(count, address):
    """Return the options that make Locust the master of count workers, which it starts itself.

    address: where it waits for workers that have joined instead. Raises RunError if all have left.
    """
    if not count:
        raise RunError("all workers have left")
    options = ["--expect-workers", count, "--worker-count", count]
    if address:
        options += ["--master", "--master-bind-host", address]
        return [*options, "--expect-workers-max-wait", WORKERS_START]
    port = free_port()  # 5557 may be another run's master
    options += ["--processes", count, "--master-bind-host", "127.0.0.1"]
    options += ["--master-bind-port", port, "--master-port", port]
    return options if count > 1 else []


def free_port(wanted=0):
    """Return a free port of 127.0.0.1: the wanted one if it is free."""
    try:
        with socket.create_server(("127.0.0.1", wanted)) as free:
            return free.getsockname()[1]
    except OSError:
        return free_port()


def locust(*options, output=subprocess.DEVNULL, timeout=None):
    """Run Locust to its end, or until timeout seconds have passed; end all its processes."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
    # From ROOT, Locust finds the rest of the repository.
    with spawn(module_command("locust", *options), cwd=ROOT, **streams) as process:
        with contextlib.suppress(psutil.TimeoutExpired):  # what it printed is reported
            process.wait(timeout)


def usage(readings, numbers, backlog, incomplete):
    """Return the ServerUsage of a run from its Readings. numbers: what its samples give."""
    first, last = readings[0], readings[-1]

    def peak(name):
        return max(getattr(reading, name) for reading in readings)

    cpu, connections = last.cpu - first.cpu, peak("descriptors") - first.descriptors
    return ServerUsage(
        cpu_us_per_greeting=cpu * 1e6 / numbers["greetings"] if numbers["greetings"] else None,
        cpu_share=cpu / numbers["seconds"],  # readings begin before the load
        cpu_incomplete=incomplete,
        rss_peak=peak("rss"),
        rss_per_connection=(peak("rss") - first.rss) / connections if connections else None,
        connections_peak=connections,
        threads_peak=peak("threads"),
        accept_queue_peak=peak("accept_queue"),
        accept_queue_limit=accept_queue_limit(backlog),
        syn_sent_peak=max(reading.clients.get("SYN-SENT", 0) for reading in readings),
        listen_drops=last.listen_drops - first.listen_drops,
        readings=readings,
    )


def health(log, not_started, server_share):
    """Return the GeneratorHealth of a run. server_share: the server's CPU, of one core."""
    processes, cores = log["generators"].values(), usable_cores()
    lags = sorted(lag for seen in processes for lag in seen["lag"]) or [0.0]
    late = stats.nearest_rank(lags, 99) * 1000
    here = [one["cpu"] for one in processes if one["host"] == socket.gethostname()]
    used, most = max((one["cpu"] / min(1, one["cores"]), one["cores"]) for one in processes)
    allowed = f"{most:g} cores" if most < 1 else "a core"
    reasons = [f"used {used:.0%} of {allowed} on average"] if used > SATURATED else []
    if cores < 2 and here and sum(here) + server_share > cores / 2:
        reasons.append(f"shared {count(cores, 'core')} with the server")
    reasons += [f"was {late:.0f} ms late"] if late > 50 else []
    reasons += [f"could not start {count(not_started, 'visitor')}"] if not_started else []
    reasons += [f"lost {count(len(log['left']), 'worker')}"] if log["left"] else []
    busiest = max(one["cpu"] for one in processes)
    return GeneratorHealth(busiest, late, " and ".join(reasons), log["left"])


def machine():
    """Return the Machine that this program runs on."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return Machine(
        cpu=cpu[0].split(": ")[1] if cpu else platform.machine(),
        cores=usable_cores(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        kernel=platform.release(),
        python=platform.python_version(),
        locust=version("locust"),
        gevent=version("gevent"),
    )
